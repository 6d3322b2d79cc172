//! Parts as compaction makes them, and what is in them.

use std::borrow::Cow;

use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use shared::timestamp::UnixMillis;

use crate::compact_partition::columnar::Totals;
use crate::compact_partition::parquet_file::PartWriter;
use crate::compact_partition::row;

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::load_warehouse) struct Row {
    pub(in crate::load_warehouse) v: Option<i32>,
    pub(in crate::load_warehouse) received_at: Option<i64>,
    pub(in crate::load_warehouse) id: Option<String>,
    /// The promoted field.
    pub(in crate::load_warehouse) kind: Option<String>,
    pub(in crate::load_warehouse) event: String,
}

/// A part with at most one promoted field.
pub(in crate::load_warehouse) fn file(promoted: &[&str], rows: &[Row]) -> Bytes {
    let mut writer = PartWriter::new(Vec::new(), promoted.iter().copied(), rows.len() as u64).unwrap();
    for row in rows {
        let values = row::Row {
            v: row.v,
            id: row.id.as_deref().map(Cow::Borrowed),
            received_at: row.received_at.map(UnixMillis),
            event: &row.event,
            ..row::Row::default()
        };
        let kind = row.kind.as_deref().map(Cow::Borrowed);
        writer.add(&values, &vec![kind; promoted.len()]).unwrap();
    }
    writer.finish(&Totals::default()).unwrap().into()
}

/// All of its rows.
pub(in crate::load_warehouse) fn rows(file: Bytes) -> Vec<Row> {
    let reader = SerializedFileReader::new(file).unwrap();
    reader.get_row_iter(None).unwrap().map(|row| self::row(row.unwrap().get_column_iter())).collect()
}

fn row<'f>(fields: impl Iterator<Item = (&'f String, &'f Field)>) -> Row {
    let mut row = Row::default();
    for (name, field) in fields {
        match (name.as_str(), field) {
            (_, Field::Null) => {}
            ("v", Field::Int(v)) => row.v = Some(*v),
            ("received_at", Field::TimestampMillis(at)) => row.received_at = Some(*at),
            ("id", Field::Str(id)) => row.id = Some(id.clone()),
            ("event", Field::Str(event)) => row.event.clone_from(event),
            (_, Field::Str(kind)) => row.kind = Some(kind.clone()),
            other => panic!("{other:?}"),
        }
    }
    row
}
