//! A part as a Parquet file, from rows and back.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::reader::{FileReader as _, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::columnar::Totals;
use super::row::Row;

/// The bytes of values after which a row group ends: 128 MiB, some 300,000 players' events. Spark and Athena give a row group to one task,
/// for which that is the usual size; DuckDB gives each to one thread, and wants 100,000 rows or more.
const ROW_GROUP_BYTES: usize = 128 * 1024 * 1024;

/// The most rows of a row group, however small.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Values that are handed to the encoder at once.
pub(crate) const BATCH_ROWS: usize = 4096;

/// Levels above it take twice the time for a twentieth of the bytes.
pub(crate) const ZSTD_LEVEL: i32 = 3;

/// The share of ids that a row group does not have and its Bloom filter does not exclude.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;

/// The name under which a file's footer has [`Totals`].
const TOTALS: &str = "playhead.totals";

/// The columns of text before the promoted fields, and behind them.
const ENVELOPE_TEXTS: [&str; 5] = ["id", "request_id", "user_agent", "ip", "app"];
const EVENT: &str = "event";

/// A file that is being written into `sink`.
pub(crate) struct PartWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    versions: Numbers<i32>,
    times: Numbers<i64>,
    /// [`ENVELOPE_TEXTS`], promoted fields, [`EVENT`].
    texts: Vec<Texts>,
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> PartWriter<W> {
    /// A file of about `rows` rows with these promoted fields.
    pub(crate) fn new<'n>(sink: W, promoted: impl Iterator<Item = &'n str>, rows: u64) -> Result<Self, ParquetError> {
        let promoted: Vec<_> = promoted.collect();
        let schema = Arc::new(parse_message_type(&schema(&promoted))?);
        Ok(Self {
            file: SerializedFileWriter::new(sink, schema, properties(rows)?)?,
            versions: Numbers::default(),
            times: Numbers::default(),
            texts: (0..ENVELOPE_TEXTS.len() + promoted.len() + 1).map(|_| Texts::default()).collect(),
            rows: 0,
            bytes: 0,
        })
    }

    /// Adds a row. `promoted` has a value for each promoted field.
    pub(crate) fn add(&mut self, row: &Row<'_>, promoted: &[Option<Cow<'_, str>>]) -> Result<(), ParquetError> {
        self.versions.add(row.v);
        self.times.add(row.received_at.map(|at| at.0));
        let envelope = [&row.id, &row.request_id, &row.user_agent, &row.ip, &row.app];
        let values = envelope.into_iter().chain(promoted).map(Option::as_deref).chain([Some(row.event)]);
        for (column, value) in self.texts.iter_mut().zip(values) {
            column.add(value);
            self.bytes += value.map_or(0, str::len);
        }
        self.rows += 1;
        if self.bytes >= ROW_GROUP_BYTES || self.rows >= ROW_GROUP_ROWS { self.end_row_group() } else { Ok(()) }
    }

    /// Ends the file, with its totals in the footer.
    pub(crate) fn finish(mut self, totals: &Totals) -> Result<W, ParquetError> {
        if self.rows > 0 {
            self.end_row_group()?;
        }
        let totals = serde_json::to_string(totals).map_err(|error| ParquetError::External(error.into()))?;
        self.file.append_key_value_metadata(KeyValue::new(TOTALS.to_owned(), totals));
        self.file.into_inner()
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.file.next_row_group()?;
        let (id, others) = self.texts.split_at_mut(1);
        self.versions.write::<Int32Type, _>(&mut group)?;
        id[0].write(&mut group, false)?;
        self.times.write::<Int64Type, _>(&mut group)?;
        let last = others.len() - 1;
        others.iter_mut().enumerate().try_for_each(|(number, column)| column.write(&mut group, number == last))?;
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

fn schema(promoted: &[&str]) -> String {
    let text = |name: &str| format!("OPTIONAL BYTE_ARRAY {name} (STRING);");
    let [id, others @ ..] = ENVELOPE_TEXTS.map(text);
    let promoted: String = promoted.iter().map(|name| text(name)).collect();
    let time = "OPTIONAL INT64 received_at (TIMESTAMP(MILLIS,true));";
    format!(
        "message event {{ OPTIONAL INT32 v; {id} {time} {} {promoted} REQUIRED BYTE_ARRAY {EVENT} (STRING); }}",
        others.concat()
    )
}

fn properties(rows: u64) -> Result<WriterPropertiesPtr, ParquetError> {
    let path = |name: &str| ColumnPath::from(name);
    let properties = WriterProperties::builder()
        // Not the library's version: equal rows make equal files.
        .set_created_by("playhead version 1".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        // Repeated values are rare in both, and the encoder would look for them first.
        .set_column_dictionary_enabled(path("id"), false)
        .set_column_dictionary_enabled(path(EVENT), false)
        .set_column_dictionary_enabled(path("received_at"), false)
        .set_column_encoding(path("received_at"), Encoding::DELTA_BINARY_PACKED)
        .set_column_bloom_filter_enabled(path("id"), true)
        .set_column_bloom_filter_fpp(path("id"), BLOOM_FALSE_POSITIVES)
        .set_column_bloom_filter_max_ndv(path("id"), rows.clamp(1, ROW_GROUP_ROWS as u64));
    Ok(Arc::new(properties.build()))
}

/// A column's values of one row group; the levels are 0 where there is none.
#[derive(Default)]
struct Numbers<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

impl<T> Numbers<T> {
    fn add(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }

    fn write<D: parquet::data_type::DataType<T = T>, W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        let mut column = next_column(group)?;
        column.typed::<D>().write_batch(&self.values, Some(&self.levels), None)?;
        self.values.clear();
        self.levels.clear();
        column.close()
    }
}

/// A column of text, one value after the other.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    lengths: Vec<Option<u32>>,
}

impl Texts {
    #[allow(clippy::cast_possible_truncation)] // A line has some 6 MiB at most.
    fn add(&mut self, value: Option<&str>) {
        self.bytes.extend_from_slice(value.unwrap_or_default().as_bytes());
        self.lengths.push(value.map(|value| value.len() as u32));
    }

    fn write<W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        is_required: bool,
    ) -> Result<(), ParquetError> {
        let mut column = next_column(group)?;
        let mut rest = Bytes::from(std::mem::take(&mut self.bytes));
        for lengths in self.lengths.chunks(BATCH_ROWS) {
            let values = lengths.iter().flatten().map(|length| rest.split_to(*length as usize).into());
            let values: Vec<ByteArray> = values.collect();
            let levels: Vec<i16> = lengths.iter().map(|length| i16::from(length.is_some())).collect();
            column.typed::<ByteArrayType>().write_batch(&values, (!is_required).then_some(&*levels), None)?;
        }
        self.lengths.clear();
        column.close()
    }
}

pub(crate) fn next_column<'g, W: Write + Send>(
    group: &'g mut SerializedRowGroupWriter<'_, W>,
) -> Result<parquet::file::writer::SerializedColumnWriter<'g>, ParquetError> {
    group.next_column()?.ok_or_else(|| ParquetError::General("the schema has fewer columns than a row".into()))
}

/// A file that was written.
pub(crate) struct PartReader {
    file: SerializedFileReader<Bytes>,
}

impl PartReader {
    pub(crate) fn new(file: Bytes) -> Result<Self, ParquetError> {
        Ok(Self { file: SerializedFileReader::new(file)? })
    }

    /// What its footer says.
    pub(crate) fn totals(&self) -> Result<Totals, ParquetError> {
        let pairs = self.file.metadata().file_metadata().key_value_metadata();
        let totals = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == TOTALS)?.value.as_deref());
        serde_json::from_str(totals.unwrap_or_default()).map_err(|error| ParquetError::External(error.into()))
    }

    /// Calls `row` with the id and the event of each row that has an id.
    pub(crate) fn for_each_id(&self, mut row: impl FnMut(&str, &str)) -> Result<(), ParquetError> {
        for number in 0..self.file.num_row_groups() {
            let group = self.file.get_row_group(number)?;
            let (id, event) = (column_of(&*group, "id")?, column_of(&*group, EVENT)?);
            let (mut ids, mut events) = (texts(&*group, id)?, texts(&*group, event)?);
            while let (Some(id), Some(event)) = (ids.next()?, events.next()?) {
                if let Some(id) = id {
                    row(id.as_utf8()?, event.unwrap_or_default().as_utf8()?);
                }
            }
        }
        Ok(())
    }
}

fn column_of(group: &dyn RowGroupReader, name: &str) -> Result<usize, ParquetError> {
    let columns = group.metadata().columns();
    let number = columns.iter().position(|column| column.column_path().string() == name);
    number.ok_or_else(|| ParquetError::General(format!("there is no column {name}")))
}

fn texts(group: &dyn RowGroupReader, number: usize) -> Result<TextReader, ParquetError> {
    let ColumnReader::ByteArrayColumnReader(reader) = group.get_column_reader(number)? else {
        return Err(ParquetError::General(format!("column {number} is no text")));
    };
    Ok(TextReader { reader, values: Vec::new(), levels: Vec::new(), row: 0, value: 0 })
}

/// A column's values, a batch at a time.
struct TextReader {
    reader: parquet::column::reader::ColumnReaderImpl<ByteArrayType>,
    values: Vec<ByteArray>,
    /// Empty where each row has a value.
    levels: Vec<i16>,
    row: usize,
    value: usize,
}

impl TextReader {
    /// The next row's value; the outer `None` at the end.
    fn next(&mut self) -> Result<Option<Option<ByteArray>>, ParquetError> {
        if self.row == self.levels.len().max(self.values.len()) {
            self.values.clear();
            self.levels.clear();
            (self.row, self.value) = (0, 0);
            let (rows, _, _) = self.reader.read_records(BATCH_ROWS, Some(&mut self.levels), None, &mut self.values)?;
            if rows == 0 {
                return Ok(None);
            }
        }
        let has_value = self.levels.get(self.row).is_none_or(|level| *level == 1);
        self.row += 1;
        if !has_value {
            return Ok(Some(None));
        }
        self.value += 1;
        Ok(Some(self.values.get(self.value - 1).cloned()))
    }
}
