"""Amazon Redshift and its Data API: PostgreSQL runs the very SQL, in transactions that see a snapshot and without a key anywhere. Only what
PostgreSQL lacks is translated: COPY, which reads the manifest and the Parquet from a bucket as Redshift does, clauses of storage, and
`PASSWORD DISABLE`.

https://docs.aws.amazon.com/redshift-data/latest/APIReference/Welcome.html"""

import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pyarrow
import pyarrow.parquet

from support.proxy import Reply, serving

# Redshift's limits.
MAX_STATEMENTS, MAX_TOKEN, MAX_TEXT_BYTES = 40, 64, 65_535
COPY = re.compile(r"""COPY ("\w+") FROM 's3://([^/']+)/([^']+)' IAM_ROLE (?:default|'arn:[^']+') FORMAT AS PARQUET ACCEPTINVCHARS MANIFEST""")
# What a column takes: https://docs.aws.amazon.com/redshift/latest/dg/copy-usage_notes-copy-from-columnar.html
TYPES = {"integer": pyarrow.int32(), "timestamp without time zone": pyarrow.timestamp("ms", tz="UTC"),
         f"character varying({MAX_TEXT_BYTES})": pyarrow.string()}
LOCK_SECONDS = 60


class Refused(Exception):
    """A statement that Redshift does not run."""


@dataclass
class Statement:
    """What was sent in one call."""

    id: str
    sqls: list
    name: str | None
    status: str = "SUBMITTED"
    error: str | None = None
    done: int = 0
    backend: int | None = None
    columns: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    thread: threading.Thread | None = None


class RedshiftData:
    """A database and the API in front of it. Objects are read by `read(bucket, key)`, which gives None for what is not there."""

    def __init__(self, database, read):
        self.database, self.read = database, read
        self.statements, self.tokens, self.calls = {}, {}, []
        # Functions of a call that answer it in the API's place, or return None, each once.
        self.faults = []
        # Of statement numbers of a transaction: called before the statement, may raise.
        self.before = {}
        # SQL that is left out.
        self.without = None
        self.lock = threading.Lock()

    # ---- The API ----

    def reply_to(self, request):
        operation = request.headers["x-amz-target"].removeprefix("RedshiftData.")
        given = json.loads(request.body)
        self.calls.append(operation)
        if self.faults and (reply := self.faults.pop(0)(self, operation, given)):
            return reply
        try:
            return answer(200, getattr(self, re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())(given))
        except Refused as refused:
            kind, text = refused.args
            return answer(400, {"__type": kind, "message": text, "Message": text})

    def batch_execute_statement(self, given):
        if not 1 <= len(given["Sqls"]) <= MAX_STATEMENTS:
            raise Refused("ValidationException", f"{len(given['Sqls'])} statements")
        return self.taken(given, given["Sqls"])

    def execute_statement(self, given):
        return self.taken(given, [given["Sql"]])

    def describe_statement(self, given):
        statement = self.statement(given["Id"])
        said = {"Id": statement.id, "Status": statement.status, "HasResultSet": bool(statement.columns)}
        return said | ({"Error": statement.error} if statement.error else {})

    def get_statement_result(self, given):
        statement = self.statement(given["Id"])
        records = [[{"isNull": True} if value is None else {"stringValue": str(value)} for value in row] for row in statement.rows]
        return {"Records": records, "ColumnMetadata": [{"name": name} for name in statement.columns], "TotalNumRows": len(records)}

    def statement(self, name):
        if name not in self.statements:
            raise Refused("ResourceNotFoundException", "Query does not exist.")
        return self.statements[name]

    def taken(self, given, sqls):
        if ("WorkgroupName" in given) == ("ClusterIdentifier" in given) or not given.get("Database"):
            raise Refused("ValidationException", "a workgroup or a cluster, and a database")
        token = given.get("ClientToken")
        if token is not None and not 1 <= len(token) <= MAX_TOKEN:
            raise Refused("ValidationException", f"a token of {len(token)} characters")
        with self.lock:
            if token is None or token not in self.tokens:
                statement = Statement(str(uuid.uuid4()), sqls, given.get("StatementName"))
                self.statements[statement.id] = statement
                self.tokens[token] = statement.id
                statement.thread = threading.Thread(target=self.run, args=[statement], daemon=True)
                statement.thread.start()
            else:
                statement = self.statements[self.tokens[token]]
        return {"Id": statement.id, "Database": given["Database"]}

    # ---- What a test does to it ----

    def wait(self):
        """Until all that was sent has ended; the statuses, oldest first."""
        for statement in list(self.statements.values()):
            statement.thread.join(LOCK_SECONDS)
            assert not statement.thread.is_alive(), statement
        return [statement.status for statement in self.statements.values()]

    def forget(self):
        """As after a day."""
        self.statements.clear()
        self.tokens.clear()

    def query(self, sql):
        with self.database.connect(autocommit=True) as connection:
            return connection.execute(sql).fetchall()

    # ---- The database ----

    def run(self, statement):
        """All statements in one transaction: the first that fails undoes them all."""
        statement.status = "STARTED"
        try:
            with self.database.connect() as connection:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                statement.backend = connection.info.backend_pid
                for number, sql in enumerate(statement.sqls):
                    self.before.get(number, lambda _: None)(statement)
                    if not (self.without and self.without in sql):
                        self.execute(connection, statement, sql)
                    statement.done = number + 1
                self.before.get(len(statement.sqls), lambda _: None)(statement)
            statement.status = "FINISHED"
        except (psycopg.Error, Refused) as error:
            statement.status, statement.error = "FAILED", f"ERROR: {error}"

    def execute(self, connection, statement, sql):
        if copy := COPY.fullmatch(sql):
            self.copy(connection, *copy.groups())
            return
        if sql.startswith("COPY"):
            raise Refused("syntax", sql)
        sql = re.sub(r"\) DISTSTYLE \w+ SORTKEY \([^)]*\)$", ")", sql).removesuffix(" PASSWORD DISABLE")
        done = connection.execute(sql)
        if done.description:
            statement.columns = [column.name for column in done.description]
            statement.rows = done.fetchall()

    def copy(self, connection, table, bucket, key):
        """By position, all or nothing; texts that are too long are an error."""
        types = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"
        columns = [name for name, in connection.execute(types, [table])]
        with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for entry in json.loads(self.object(bucket, key))["entries"]:
                url = urlsplit(entry["url"])
                file = self.object(url.netloc, url.path[1:])
                if entry["meta"]["content_length"] != len(file) or entry["mandatory"] is not True:
                    raise Refused("copy", f"{entry} with {len(file)} bytes")
                for row in rows(file, columns):
                    copy.write_row(row)

    def object(self, bucket, key):
        body = self.read(bucket, key)
        if body is None:
            raise Refused("copy", f"The specified key does not exist: s3://{bucket}/{key}")
        return body


def rows(file, columns):
    """A part's rows, if a table with such columns takes them."""
    table = pyarrow.parquet.read_table(io.BytesIO(file))
    if [TYPES[column] for column in columns] != table.schema.types:
        raise Refused("copy", f"The columns {table.schema.types} are not {columns}")
    for row in zip(*(column.to_pylist() for column in table.columns)):
        for value in row:
            if isinstance(value, str) and (len(value.encode()) > MAX_TEXT_BYTES or "\0" in value):
                raise Refused("copy", "Spectrum Scan Error: the length of the data column is longer than the length defined in the table")
        yield row


def answer(status, body):
    return Reply(status, [("content-type", "application/x-amz-json-1.1")], json.dumps(body).encode())


# ---- Faults ----

def refused(kind, operation="BatchExecuteStatement"):
    """A call of this kind is refused."""
    def fault(api, called, given):
        return answer(400, {"__type": kind, "message": kind}) if called == operation else None
    return fault


def cut_off_after_taking(api, called, given):
    """The transaction is taken, and the connection ends without an answer."""
    if called == "BatchExecuteStatement":
        api.batch_execute_statement(given)
    raise OSError("cut off")


# ---- PostgreSQL ----

class Database:
    """A PostgreSQL of its own, on a socket in its folder."""

    def __init__(self, directory):
        self.directory = directory

    def connect(self, **options):
        return psycopg.connect(host=str(self.directory), user="postgres", dbname="postgres", options="-c timezone=UTC", **options)


def program(name):
    found = shutil.which(name) or next(iter(sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    assert found, f"tests/install.sh installs PostgreSQL, which has {name}"
    return found


@contextmanager
def running_database():
    """PostgreSQL does not start as root: then the user that its package made runs it."""
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="redshift-") as name:
        directory = Path(name)
        if as_user:
            shutil.chown(directory, "postgres", "postgres")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": directory}
        subprocess.run([*as_user, program("initdb"), "-D", directory / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C",
                        "--no-sync"], check=True, timeout=120, **quiet)
        process = subprocess.Popen([*as_user, program("postgres"), "-D", directory / "data", "-k", directory, "-c", "listen_addresses=",
                                    "-c", "fsync=off"], **quiet)
        try:
            database = Database(directory)
            await_ready(database, process)
            with database.connect(autocommit=True) as connection:
                # As in Redshift.
                connection.execute("CREATE FUNCTION getdate() RETURNS timestamp LANGUAGE sql AS 'SELECT now()::timestamp(0)'")
            yield database
        finally:
            process.terminate()
            process.wait(60)


def await_ready(database, process):
    for _ in range(300):
        try:
            database.connect().close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, "PostgreSQL ended"
            threading.Event().wait(0.1)
    raise AssertionError("PostgreSQL does not answer")


@contextmanager
def serving_warehouse(warehouse):
    """The API's address."""
    with serving(warehouse.reply_to) as address:
        yield f"http://{address}"
