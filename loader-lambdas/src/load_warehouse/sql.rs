//! The transaction that replaces an hour, as statements and as SQL. Pure.
//!
//! Redshift enforces no keys, so that each hour is there once rests on this. LOCK comes first: it waits for other loads, and a
//! transaction's snapshot is taken by the first statement after it
//! (<https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html>), so that it sees what they committed. Whatever changes a
//! table for good is on condition that nothing newer, and not the same, was loaded. A batch has no branches: it is in each statement.

use shared::timestamp::{UnixMillis, UtcHour};

/// The tables, and who reads S3 for COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) schema: String,
    pub(super) copy_role: CopyRole,
}

/// The role by which COPY reads S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CopyRole {
    /// The warehouse's own default.
    Default,
    Arn(String),
}

/// A column of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Timestamp,
    Text,
}

/// Parts of an hour that have the same columns, and so can be staged in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) columns: Vec<Column>,
    /// The address of COPY's manifest.
    pub(super) manifest: String,
    pub(super) rows: u64,
}

/// The most groups of an hour: a new one begins where `PROMOTED_FIELDS` was changed between two seals of it. More would not fit into a
/// batch.
pub(super) const MAX_GROUPS: usize = 7;

/// The most statements of a batch: <https://docs.aws.amazon.com/redshift/latest/mgmt/data-api.html>
#[cfg(test)]
const MAX_STATEMENTS: usize = 40;

/// Texts of more bytes are marked as cut: a text is cut to 65,535 bytes at most, at a character, which has four at most. So a text of
/// 65,532 to 65,535 bytes that was whole is marked, too.
pub(super) const MAX_UNMARKED_BYTES: usize = super::fit::MAX_TEXT_BYTES - 4;

/// The flag of rows with a text that was cut. No promoted field's name begins with an underscore.
const CUT: &str = "_cut";

/// What one transaction loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) tables: Tables,
    pub(super) hour: UtcHour,
    /// Of the compacted hour's `_SUCCESS`, without quotes.
    pub(super) etag: String,
    /// Of the newest manifest that the hour was compacted by: a load of an older one never replaces it.
    pub(super) sealed_at: UnixMillis,
    /// At most [`MAX_GROUPS`].
    pub(super) groups: Vec<Group>,
}

/// A statement of a transaction; numbers are those of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement {
    Lock,
    CreateStaging(usize),
    Copy(usize),
    /// Fails if COPY took other rows than were counted.
    CheckRows(usize),
    DeleteHour,
    InsertHour(usize),
    DeleteLoad,
    InsertLoad,
    /// Else a session that is used again would still have it.
    DropStaging(usize),
}

impl Transaction {
    /// Its statements, in their order.
    pub(super) fn statements(&self) -> Vec<Statement> {
        let groups = 0..self.groups.len();
        let staged = |group| [Statement::CreateStaging(group), Statement::Copy(group), Statement::CheckRows(group)];
        let mut statements = vec![Statement::Lock];
        statements.extend(groups.clone().flat_map(staged));
        statements.push(Statement::DeleteHour);
        statements.extend(groups.clone().map(Statement::InsertHour));
        statements.extend([Statement::DeleteLoad, Statement::InsertLoad]);
        statements.extend(groups.map(Statement::DropStaging));
        statements
    }

    /// The same as SQL.
    pub(super) fn sqls(&self) -> Vec<String> {
        self.statements().into_iter().map(|statement| self.sql(statement)).collect()
    }

    /// For people who look at the warehouse's queries.
    pub(super) fn name(&self) -> String {
        format!("playhead {}", self.hour.partition())
    }

    /// Rows of the hour.
    pub(super) fn rows(&self) -> u64 {
        self.groups.iter().map(|group| group.rows).sum()
    }

    fn sql(&self, statement: Statement) -> String {
        match statement {
            Statement::Lock => format!("LOCK TABLE {}", self.table("loads")),
            Statement::CreateStaging(group) => self.create_staging(group),
            Statement::Copy(group) => self.copy(group),
            Statement::CheckRows(group) => {
                let rows = self.groups[group].rows;
                format!("SELECT 1 / CASE WHEN count(*) = {rows} THEN 1 ELSE 0 END FROM {}", self.staging(group))
            }
            Statement::DeleteHour => {
                format!("DELETE FROM {} WHERE {} AND {}", self.table("events"), self.of_hour(), self.is_new())
            }
            Statement::InsertHour(group) => self.insert_hour(group),
            Statement::DeleteLoad => {
                format!("DELETE FROM {} WHERE {} AND {}", self.table("loads"), self.of_hour(), self.is_new())
            }
            Statement::InsertLoad => self.insert_load(),
            Statement::DropStaging(group) => format!("DROP TABLE {}", self.staging(group)),
        }
    }

    fn create_staging(&self, group: usize) -> String {
        let column = |column: &Column| format!("{} {}", identifier(&column.name), column.kind.sql());
        let columns: Vec<_> = self.groups[group].columns.iter().map(column).collect();
        format!("CREATE TEMP TABLE {} ({})", self.staging(group), columns.join(", "))
    }

    /// Characters that Redshift knows as invalid, as U+FFFF, become question marks.
    fn copy(&self, group: usize) -> String {
        let role = match &self.tables.copy_role {
            CopyRole::Default => "default".to_owned(),
            CopyRole::Arn(arn) => literal(arn),
        };
        let (staging, manifest) = (self.staging(group), literal(&self.groups[group].manifest));
        format!("COPY {staging} FROM {manifest} IAM_ROLE {role} FORMAT AS PARQUET ACCEPTINVCHARS MANIFEST")
    }

    fn insert_hour(&self, group: usize) -> String {
        let columns = &self.groups[group].columns;
        let names: Vec<_> = columns.iter().map(|column| identifier(&column.name)).collect();
        let names = names.join(", ");
        let is_text = |column: &&Column| column.kind == Kind::Text;
        let lengths =
            columns.iter().filter(is_text).map(|column| format!("octet_length({})", identifier(&column.name)));
        let lengths: Vec<_> = lengths.collect();
        format!(
            "INSERT INTO {} (\"dt\", \"hour\", {names}, \"{CUT}\") \
             SELECT {}, {}, {names}, greatest({}) > {MAX_UNMARKED_BYTES} FROM {} WHERE {}",
            self.table("events"),
            self.date(),
            self.hour.of_day(),
            lengths.join(", "),
            self.staging(group),
            self.is_new(),
        )
    }

    fn insert_load(&self) -> String {
        format!(
            "INSERT INTO {} (\"dt\", \"hour\", \"etag\", \"sealed_at\", \"rows\", \"loaded_at\") \
             SELECT {}, {}, {}, {}, {}, getdate() WHERE {}",
            self.table("loads"),
            self.date(),
            self.hour.of_day(),
            literal(&self.etag),
            self.sealed_at(),
            self.rows(),
            self.is_new(),
        )
    }

    /// That neither a newer compaction of the hour was loaded, nor this one.
    fn is_new(&self) -> String {
        let (loads, of_hour) = (self.table("loads"), self.of_hour());
        let (sealed_at, etag) = (self.sealed_at(), literal(&self.etag));
        format!(
            "NOT EXISTS (SELECT 1 FROM {loads} WHERE {of_hour} AND (\"sealed_at\" > {sealed_at} OR \"etag\" = {etag}))"
        )
    }

    fn of_hour(&self) -> String {
        format!("\"dt\" = {} AND \"hour\" = {}", self.date(), self.hour.of_day())
    }

    fn date(&self) -> String {
        let partition = self.hour.date().partition();
        format!("{}::date", literal(partition.trim_start_matches("dt=")))
    }

    fn sealed_at(&self) -> String {
        let text = self.sealed_at.rfc3339().replace('T', " ");
        format!("{}::timestamp", literal(text.trim_end_matches('Z')))
    }

    fn table(&self, name: &str) -> String {
        format!("{}.{}", identifier(&self.tables.schema), identifier(name))
    }

    fn staging(&self, group: usize) -> String {
        identifier(&format!("playhead_staging_{group}"))
    }
}

impl Kind {
    const fn sql(self) -> &'static str {
        match self {
            Self::Integer => "INTEGER",
            Self::Timestamp => "TIMESTAMP",
            Self::Text => "VARCHAR(65535)",
        }
    }
}

/// <https://docs.aws.amazon.com/redshift/latest/dg/r_names.html>
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// In Redshift a backslash escapes what follows it, other than in later releases of PostgreSQL. Nothing that is written here has one.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn columns(promoted: &[&str]) -> Vec<Column> {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind };
        let mut columns = vec![column("v", Kind::Integer), column("received_at", Kind::Timestamp)];
        columns.extend(promoted.iter().map(|name| column(name, Kind::Text)));
        columns.push(column("event", Kind::Text));
        columns
    }

    fn transaction(groups: usize) -> Transaction {
        let group = |number: usize| Group {
            columns: columns(&["order"]),
            manifest: format!("s3://b/warehouse/m-{number}"),
            rows: 3,
        };
        Transaction {
            tables: Tables { schema: "playhead".into(), copy_role: CopyRole::Arn("arn:aws:iam::1:role/r".into()) },
            hour: UtcHour::parse("dt=2026-11-21/hour=09").unwrap(),
            etag: "e1".into(),
            sealed_at: UnixMillis(1_795_253_530_006),
            groups: (0..groups).map(group).collect(),
        }
    }

    const IS_NEW: &str = r#"NOT EXISTS (SELECT 1 FROM "playhead"."loads" WHERE "dt" = '2026-11-21'::date AND "hour" = 9 AND ("sealed_at" > '2026-11-21 09:32:10.006'::timestamp OR "etag" = 'e1'))"#;

    #[test]
    fn an_hour_is_replaced_by_these_statements() {
        let of_hour = r#""dt" = '2026-11-21'::date AND "hour" = 9"#;
        assert_eq!(transaction(1).sqls(), [
            r#"LOCK TABLE "playhead"."loads""#.to_owned(),
            r#"CREATE TEMP TABLE "playhead_staging_0" ("v" INTEGER, "received_at" TIMESTAMP, "order" VARCHAR(65535), "event" VARCHAR(65535))"#.to_owned(),
            "COPY \"playhead_staging_0\" FROM 's3://b/warehouse/m-0' IAM_ROLE 'arn:aws:iam::1:role/r' \
             FORMAT AS PARQUET ACCEPTINVCHARS MANIFEST".to_owned(),
            r#"SELECT 1 / CASE WHEN count(*) = 3 THEN 1 ELSE 0 END FROM "playhead_staging_0""#.to_owned(),
            format!(r#"DELETE FROM "playhead"."events" WHERE {of_hour} AND {IS_NEW}"#),
            format!(
                r#"INSERT INTO "playhead"."events" ("dt", "hour", "v", "received_at", "order", "event", "_cut") SELECT '2026-11-21'::date, 9, "v", "received_at", "order", "event", greatest(octet_length("order"), octet_length("event")) > 65531 FROM "playhead_staging_0" WHERE {IS_NEW}"#
            ),
            format!(r#"DELETE FROM "playhead"."loads" WHERE {of_hour} AND {IS_NEW}"#),
            format!(
                r#"INSERT INTO "playhead"."loads" ("dt", "hour", "etag", "sealed_at", "rows", "loaded_at") SELECT '2026-11-21'::date, 9, 'e1', '2026-11-21 09:32:10.006'::timestamp, 3, getdate() WHERE {IS_NEW}"#
            ),
            r#"DROP TABLE "playhead_staging_0""#.to_owned(),
        ]);
    }

    #[test]
    fn the_default_role_is_a_keyword() {
        let mut transaction = transaction(1);
        transaction.tables.copy_role = CopyRole::Default;
        assert!(transaction.sqls()[2].contains(" IAM_ROLE default FORMAT "));
    }

    #[rstest]
    #[case(0)]
    #[case(1)]
    #[case(MAX_GROUPS)]
    fn a_batch_takes_the_statements_and_the_lock_comes_first(#[case] groups: usize) {
        let transaction = transaction(groups);
        let statements = transaction.statements();
        assert!(statements.len() <= MAX_STATEMENTS);
        assert_eq!(statements.first(), Some(&Statement::Lock));
        assert_eq!(transaction.rows(), 3 * groups as u64);
    }

    #[test]
    fn one_more_group_does_not_fit() {
        assert!(transaction(MAX_GROUPS + 1).statements().len() > MAX_STATEMENTS);
    }

    #[rstest]
    #[case("a", "\"a\"")]
    #[case("a\"b", "\"a\"\"b\"")]
    fn identifiers_are_quoted(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(identifier(name), expected);
    }

    #[rstest]
    #[case("a", "'a'")]
    #[case("a'b", "'a''b'")]
    #[case(r"a\'b", r"'a\\''b'")]
    fn literals_are_quoted(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(literal(text), expected);
    }
}
