//! Parquet that Redshift takes.
//!
//! COPY of columnar files fails at a text of more than 65,535 bytes, and can't cut: it takes `TRUNCATECOLUMNS` of text files alone
//! (<https://docs.aws.amazon.com/redshift/latest/dg/copy-usage_notes-copy-from-columnar.html>). A SUPER column holds longer ones only
//! where an administrator has opted in
//! (<https://docs.aws.amazon.com/redshift/latest/dg/r_enable_large_strings_opt_in.html>). So each part is read, and one with such a
//! text is copied with its texts cut. Few players send such events, and few parts have any.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, TimeUnit, TimestampType, Type as PhysicalType, ZstdLevel};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnDescriptor;

use super::sql::{Column, Kind};
use crate::compact_partition::parquet_file::{BATCH_ROWS, ZSTD_LEVEL, next_column};

/// The most bytes of a VARCHAR: <https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html>
pub(super) const MAX_TEXT_BYTES: usize = 65_535;

/// What was found in a part.
#[derive(Debug)]
pub(super) struct Fitted {
    pub(super) columns: Vec<Column>,
    pub(super) rows: u64,
    /// A copy, if Redshift does not take the part as it is.
    pub(super) copy: Option<Bytes>,
    /// Texts that the copy has otherwise.
    pub(super) changed: u64,
}

/// Looks at each text of a part.
pub(super) fn fit(part: Bytes) -> Result<Fitted, ParquetError> {
    let file = SerializedFileReader::new(part)?;
    let metadata = file.metadata().file_metadata();
    let columns = metadata.schema_descr().columns().iter().map(|column| described(column)).collect::<Result<_, _>>()?;
    let rows = u64::try_from(metadata.num_rows()).unwrap_or_default();
    let changed = unfit(&file)?;
    let copy = if changed > 0 { Some(copy(&file)?) } else { None };
    Ok(Fitted { columns, rows, copy, changed })
}

/// How a column is named and typed in Redshift.
fn described(column: &ColumnDescriptor) -> Result<Column, ParquetError> {
    let kind = match (column.physical_type(), column.logical_type_ref()) {
        (PhysicalType::INT32, None | Some(LogicalType::Integer(_))) => Kind::Integer,
        (PhysicalType::INT64, Some(LogicalType::Timestamp(TimestampType { unit: TimeUnit::MILLIS, .. }))) => {
            Kind::Timestamp
        }
        (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)) => Kind::Text,
        _ => return Err(ParquetError::General(format!("column {} has an unknown type", column.name()))),
    };
    Ok(Column { name: column.name().to_owned(), kind })
}

/// The text as Redshift takes it, unless it does so as it is. No text in Redshift has the character NUL.
fn fitted(text: &str) -> Option<String> {
    if text.len() <= MAX_TEXT_BYTES && !text.contains('\0') {
        return None;
    }
    let mut text = text.replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    Some(text)
}

/// Texts that Redshift does not take.
fn unfit(file: &SerializedFileReader<Bytes>) -> Result<u64, ParquetError> {
    let mut unfit = 0;
    for number in 0..file.num_row_groups() {
        let group = file.get_row_group(number)?;
        for column in 0..group.num_columns() {
            if let ColumnReader::ByteArrayColumnReader(reader) = group.get_column_reader(column)? {
                unfit += unfit_in(reader)?;
            }
        }
    }
    Ok(unfit)
}

fn unfit_in(reader: ColumnReaderImpl<ByteArrayType>) -> Result<u64, ParquetError> {
    let mut unfit = 0;
    for_each_batch(reader, |values, _| {
        for value in values.iter() {
            unfit += u64::from(fitted(value.as_utf8()?).is_some());
        }
        Ok(())
    })?;
    Ok(unfit)
}

/// Equal parts make equal copies.
fn copy(file: &SerializedFileReader<Bytes>) -> Result<Bytes, ParquetError> {
    let properties = WriterProperties::builder()
        .set_created_by("playhead load-warehouse version 1".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .build();
    let schema = file.metadata().file_metadata().schema_descr().root_schema_ptr();
    let mut copy = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    for number in 0..file.num_row_groups() {
        copy_group(&*file.get_row_group(number)?, copy.next_row_group()?)?;
    }
    copy.into_inner().map(Bytes::from)
}

fn copy_group(group: &dyn RowGroupReader, mut copy: SerializedRowGroupWriter<'_, Vec<u8>>) -> Result<(), ParquetError> {
    for number in 0..group.num_columns() {
        let is_optional = group.metadata().column(number).column_descr().max_def_level() > 0;
        match group.get_column_reader(number)? {
            ColumnReader::Int32ColumnReader(reader) => copy_column::<Int32Type>(reader, &mut copy, is_optional)?,
            ColumnReader::Int64ColumnReader(reader) => copy_column::<Int64Type>(reader, &mut copy, is_optional)?,
            ColumnReader::ByteArrayColumnReader(reader) => {
                copy_column::<ByteArrayType>(reader, &mut copy, is_optional)?;
            }
            _ => return Err(ParquetError::General(format!("column {number} has an unknown type"))),
        }
    }
    copy.close().map(drop)
}

fn copy_column<T: DataType>(
    reader: ColumnReaderImpl<T>,
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    is_optional: bool,
) -> Result<(), ParquetError>
where
    T::T: Fit,
{
    let mut column = next_column(group)?;
    for_each_batch(reader, |values, levels| {
        values.iter_mut().try_for_each(Fit::fit)?;
        column.typed::<T>().write_batch(values, is_optional.then_some(levels), None).map(drop)
    })?;
    column.close()
}

/// Calls `batch` with the values of up to [`BATCH_ROWS`] rows and their levels, which are 0 where there is none.
fn for_each_batch<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    mut batch: impl FnMut(&mut [T::T], &[i16]) -> Result<(), ParquetError>,
) -> Result<(), ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    loop {
        values.clear();
        levels.clear();
        let (rows, _, _) = reader.read_records(BATCH_ROWS, Some(&mut levels), None, &mut values)?;
        if rows == 0 {
            return Ok(());
        }
        batch(&mut values, &levels)?;
    }
}

/// A value that may have to be changed.
trait Fit {
    fn fit(&mut self) -> Result<(), ParquetError>;
}

impl Fit for i32 {
    fn fit(&mut self) -> Result<(), ParquetError> {
        Ok(())
    }
}

impl Fit for i64 {
    fn fit(&mut self) -> Result<(), ParquetError> {
        Ok(())
    }
}

impl Fit for ByteArray {
    fn fit(&mut self) -> Result<(), ParquetError> {
        if let Some(text) = fitted(self.as_utf8()?) {
            *self = text.into_bytes().into();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_warehouse::sql::MAX_UNMARKED_BYTES;
    use crate::load_warehouse::tests::parquet::{self, Row};
    use rstest::rstest;

    #[rstest]
    #[case::on_the_bound("x".repeat(MAX_TEXT_BYTES), None)]
    #[case::one_past_it("x".repeat(MAX_TEXT_BYTES + 1), Some("x".repeat(MAX_TEXT_BYTES)))]
    #[case::inside_a_character("x".repeat(MAX_TEXT_BYTES - 1) + "é", Some("x".repeat(MAX_TEXT_BYTES - 1)))]
    #[case::nul("a\0b".to_owned(), Some("a\u{fffd}b".to_owned()))]
    #[case::longer_without_nul("\0".repeat(MAX_TEXT_BYTES), Some("\u{fffd}".repeat(MAX_TEXT_BYTES / 3)))]
    #[case::empty(String::new(), None)]
    fn texts_are_cut_at_a_character(#[case] text: String, #[case] expected: Option<String>) {
        assert_eq!(fitted(&text), expected);
    }

    #[rstest]
    fn a_text_that_was_cut_is_marked(
        #[values("x", "é", "€", "😀")] character: &str,
        #[values(0, 1, 2, 3)] before: usize,
    ) {
        let text = fitted(&("x".repeat(before) + &character.repeat(MAX_TEXT_BYTES + 1))).unwrap();
        assert!(text.len() > MAX_UNMARKED_BYTES && text.len() <= MAX_TEXT_BYTES);
    }

    fn row(id: Option<&str>, kind: Option<&str>, event: &str) -> Row {
        Row {
            v: Some(1),
            received_at: Some(7),
            id: id.map(str::to_owned),
            kind: kind.map(str::to_owned),
            event: event.to_owned(),
        }
    }

    #[test]
    fn a_part_that_fits_is_not_copied() {
        let rows = [row(Some("a"), None, "{}"), row(None, Some("play"), &"x".repeat(MAX_TEXT_BYTES))];
        let fitted = fit(parquet::file(&["type"], &rows)).unwrap();
        assert!(fitted.copy.is_none());
        assert_eq!((fitted.rows, fitted.changed), (2, 0));
        let names: Vec<_> = fitted.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["v", "id", "received_at", "request_id", "user_agent", "ip", "app", "type", "event"]);
        assert_eq!(fitted.columns[2].kind, Kind::Timestamp);
    }

    /// Over several batches, with absent values in between.
    #[test]
    fn a_copy_differs_in_texts_that_do_not_fit_alone() {
        let long = "é".repeat(MAX_TEXT_BYTES);
        let mut rows: Vec<Row> = (0..BATCH_ROWS * 2 + 1)
            .map(|number| row((number % 3 > 0).then_some("i"), (number % 2 > 0).then_some("t"), &number.to_string()))
            .collect();
        rows[1].event.clone_from(&long);
        rows[BATCH_ROWS + 3].kind = Some("a\0".into());
        let fitted = fit(parquet::file(&["type"], &rows)).unwrap();
        assert_eq!(fitted.changed, 2);
        rows[1].event = "é".repeat(MAX_TEXT_BYTES / 2);
        rows[BATCH_ROWS + 3].kind = Some("a\u{fffd}".into());
        let copy = fitted.copy.unwrap();
        assert!(parquet::rows(copy.clone()) == rows);
        let again = fit(copy).unwrap();
        assert!(again.copy.is_none() && again.rows == rows.len() as u64 && again.columns == fitted.columns);
    }

    #[test]
    fn what_is_not_parquet_is_an_error() {
        assert!(fit(Bytes::from_static(b"PAR1")).is_err());
    }
}
