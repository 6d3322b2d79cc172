//! The folder behind the buckets. A body is a plain file, `<root>/<bucket>/<key>`, that any tool can read. What S3 knows of an
//! object besides its body is in `<root>/.objects/<bucket>`, which no listing shows; so are the bodies whose keys name no file
//! of their own: `a/../b`, or `a` beside `a/b`.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use testbed::{Bucket, Content, Object};
use uuid::Uuid;

/// A folder that holds buckets. Its calls block.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
}

/// What a client says about an object besides its body.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attributes {
    /// `x-amz-meta-…`, without that prefix.
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) cache_control: Option<String>,
}

/// A body that is in files, as the bucket has it.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    place: Place,
    size: u64,
    md5: [u8; 16],
    pub(crate) attributes: Arc<Attributes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// In the file that the key names.
    Key,
    /// In a file among the descriptions.
    Apart,
    /// In unfinished files, one after the other.
    Unfinished(Vec<PathBuf>),
}

/// What is remembered of an object until the next start.
#[derive(Serialize, Deserialize)]
struct Description {
    key: String,
    etag: String,
    md5: String,
    place: Place,
    size: u64,
    /// When the file was written, in nanoseconds since 1970: whether it is still the one that is described.
    modified_ns: u64,
    attributes: Arc<Attributes>,
}

impl Content for Body {
    fn size(&self) -> u64 {
        self.size
    }

    fn md5(&self) -> [u8; 16] {
        self.md5
    }

    fn metadata_bytes(&self) -> usize {
        self.attributes.metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn assembled(&self, parts: &[Self]) -> Self {
        let place = Place::Unfinished(parts.iter().flat_map(Self::unfinished_files).cloned().collect());
        let size = parts.iter().map(|part| part.size).sum();
        Self { place, size, md5: self.md5, attributes: self.attributes.clone() }
    }
}

impl Body {
    /// What a multipart upload begins with.
    pub(crate) fn empty(attributes: Attributes) -> Self {
        let attributes = Arc::new(attributes);
        Self { place: Place::Unfinished(Vec::new()), size: 0, md5: [0; 16], attributes }
    }

    pub(crate) fn with_attributes(self, attributes: Arc<Attributes>) -> Self {
        Self { attributes, ..self }
    }

    fn unfinished_files(&self) -> &[PathBuf] {
        match &self.place {
            Place::Unfinished(files) => files,
            Place::Key | Place::Apart => &[],
        }
    }
}

impl Folder {
    /// Opens a folder; what was unfinished when it was last used goes.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let folder = Self { root: root.to_owned() };
        match fs::remove_dir_all(folder.unfinished()) {
            Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem),
            _ => fs::create_dir_all(folder.unfinished())?,
        }
        Ok(folder)
    }

    pub(crate) fn buckets(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.root)?.collect::<io::Result<Vec<_>>>()?;
        let folders = entries.into_iter().filter(|entry| entry.path().is_dir());
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    pub(crate) fn create_bucket(&self, bucket: &str) -> io::Result<()> {
        fs::create_dir_all(self.root.join(bucket))?;
        fs::create_dir_all(self.descriptions(bucket))
    }

    pub(crate) fn bucket_created(&self, bucket: &str) -> io::Result<SystemTime> {
        fs::metadata(self.root.join(bucket))?.modified()
    }

    /// The objects of a bucket: those that are described, and files that somebody put there.
    pub(crate) fn load(&self, bucket: &str) -> io::Result<Bucket<Body>> {
        let mut loaded = Bucket::default();
        for entry in fs::read_dir(self.descriptions(bucket))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                self.load_described(bucket, &path, &mut loaded)?;
            }
        }
        self.load_others(bucket, &self.root.join(bucket), &mut loaded)?;
        Ok(loaded)
    }

    fn load_described(&self, bucket: &str, path: &Path, loaded: &mut Bucket<Body>) -> io::Result<()> {
        let Description { key, etag, md5, place, size, modified_ns, attributes } =
            serde_json::from_slice(&fs::read(path)?).map_err(|problem| named(path, problem))?;
        let found = match fs::metadata(self.path(bucket, &key, &place)) {
            Ok(found) => found,
            Err(problem) if is_absent(&problem) => return fs::remove_file(path),
            Err(problem) => return Err(problem),
        };
        let mut decoded = [0; 16];
        hex::decode_to_slice(md5, &mut decoded).map_err(|problem| named(path, problem))?;
        // Else it was replaced by hand, or the process ended before the new body was there.
        if (found.len(), modified_ns_of(&found)?) == (size, modified_ns) {
            let content = Body { place, size, md5: decoded, attributes };
            loaded.restore(&key, Object { content, etag, last_modified: modified_ms(&found)? });
        }
        Ok(())
    }

    fn load_others(&self, bucket: &str, folder: &Path, loaded: &mut Bucket<Body>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let (path, root) = (entry?.path(), self.root.join(bucket));
            let Some(key) = path.strip_prefix(root).ok().and_then(Path::to_str) else { continue };
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                // A link to nothing.
                Err(problem) if is_absent(&problem) => continue,
                Err(problem) => return Err(problem),
            };
            if metadata.is_dir() {
                self.load_others(bucket, &path, loaded)?;
            } else if loaded.get(key).is_none() {
                let content = Body { place: Place::Key, ..self.described_as_it_is(&path)? };
                let etag = format!("\"{}\"", hex::encode(content.md5));
                loaded.restore(key, Object { content, etag, last_modified: modified_ms(&metadata)? });
            }
        }
        Ok(())
    }

    fn described_as_it_is(&self, path: &Path) -> io::Result<Body> {
        let mut hasher = Hasher { md5: Md5::new(), size: 0, out: io::sink() };
        io::copy(&mut File::open(path)?, &mut hasher)?;
        Ok(hasher.body(Vec::new()))
    }

    /// Writes a body that does not belong to an object yet.
    pub(crate) fn write(&self, body: impl Read) -> io::Result<Body> {
        self.write_all([Ok(body)])
    }

    /// Writes a body that is a range of an object's.
    pub(crate) fn copy(&self, bucket: &str, key: &str, body: &Body, range: Range<u64>) -> io::Result<Body> {
        let mut source = File::open(self.path(bucket, key, &body.place))?;
        source.seek(SeekFrom::Start(range.start))?;
        self.write(source.take(range.end - range.start))
    }

    /// Writes a body that consists of an upload's parts.
    pub(crate) fn join(&self, parts: &Body) -> io::Result<Body> {
        let joined = self.write_all(parts.unfinished_files().iter().map(File::open))?;
        Ok(joined.with_attributes(parts.attributes.clone()))
    }

    fn write_all(&self, sources: impl IntoIterator<Item = io::Result<impl Read>>) -> io::Result<Body> {
        let path = self.new_file();
        let mut hasher = Hasher { md5: Md5::new(), size: 0, out: File::create_new(&path)? };
        for source in sources {
            io::copy(&mut source?, &mut hasher)?;
        }
        Ok(hasher.body(vec![path]))
    }

    /// Gives an object a body that was written, in place of its current one. From then on it survives a restart.
    pub(crate) fn keep(&self, bucket: &str, key: &str, etag: &str, new: Body, old: Option<&Body>) -> io::Result<Body> {
        let place = self.place_for(bucket, key, old);
        let (path, [unfinished]) = (self.path(bucket, key, &place), new.unfinished_files()) else {
            return Err(io::Error::other("a body is in one file"));
        };
        let description = Description {
            key: key.to_owned(),
            etag: etag.to_owned(),
            md5: hex::encode(new.md5),
            place: place.clone(),
            size: new.size,
            modified_ns: modified_ns_of(&fs::metadata(unfinished)?)?,
            attributes: new.attributes.clone(),
        };
        let described = self.new_file();
        fs::write(&described, serde_json::to_vec(&description)?)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(described, self.description(bucket, key))?;
        fs::rename(unfinished, path)?;
        if let Some(old) = old.filter(|old| old.place != place) {
            self.remove_file(&self.path(bucket, key, &old.place))?;
        }
        Ok(Body { place, ..new })
    }

    /// A key's own file, unless the key names none, another object's, or a folder.
    fn place_for(&self, bucket: &str, key: &str, old: Option<&Body>) -> Place {
        let (root, path) = (self.root.join(bucket), self.path(bucket, key, &Place::Key));
        let is_own = old.is_some_and(|old| old.place == Place::Key);
        let is_free =
            || !path.exists() && path.ancestors().skip(1).take_while(|at| *at != root).all(|at| !at.is_file());
        if is_own || is_file_name(key) && is_free() { Place::Key } else { Place::Apart }
    }

    /// Removes the files of a body that no longer belongs to an object, or never did.
    pub(crate) fn remove(&self, bucket: &str, key: &str, body: &Body) -> io::Result<()> {
        if let Place::Unfinished(paths) = &body.place {
            return paths.iter().try_for_each(|path| self.remove_file(path));
        }
        let path = self.path(bucket, key, &body.place);
        self.remove_file(&path)?;
        self.remove_file(&self.description(bucket, key))?;
        // A folder that others are in stays.
        let root = self.root.join(bucket);
        let folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(&root) && *folder != root);
        folders.take_while(|folder| fs::remove_dir(folder).is_ok()).for_each(drop);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(problem) if !is_absent(&problem) => Err(problem),
            _ => Ok(()),
        }
    }

    /// Opens an object's body; `None` when somebody took the file away.
    pub(crate) fn read(&self, bucket: &str, key: &str, body: &Body) -> io::Result<Option<File>> {
        match File::open(self.path(bucket, key, &body.place)) {
            Ok(file) => Ok(Some(file)),
            Err(problem) if is_absent(&problem) => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    fn path(&self, bucket: &str, key: &str, place: &Place) -> PathBuf {
        match place {
            Place::Key => self.root.join(bucket).join(key),
            Place::Apart | Place::Unfinished(_) => self.description(bucket, key).with_extension("body"),
        }
    }

    fn description(&self, bucket: &str, key: &str) -> PathBuf {
        self.descriptions(bucket).join(format!("{}.json", hex::encode(Md5::digest(key))))
    }

    fn descriptions(&self, bucket: &str) -> PathBuf {
        self.root.join(".objects").join(bucket)
    }

    fn new_file(&self) -> PathBuf {
        self.unfinished().join(Uuid::new_v4().to_string())
    }

    fn unfinished(&self) -> PathBuf {
        self.root.join(".objects").join(".unfinished")
    }
}

struct Hasher<W> {
    md5: Md5,
    size: u64,
    out: W,
}

impl<W> Hasher<W> {
    fn body(self, files: Vec<PathBuf>) -> Body {
        let (place, md5) = (Place::Unfinished(files), self.md5.finalize().into());
        Body { place, size: self.size, md5, attributes: Arc::default() }
    }
}

impl<W: Write> Write for Hasher<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.md5.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether a key names a file in its bucket's folder: S3 takes any text.
fn is_file_name(key: &str) -> bool {
    let is_name = |segment: &str| !matches!(segment, "" | "." | "..") && segment.len() <= 255;
    !key.contains('\0') && key.split('/').all(is_name)
}

/// No such file, or none where a folder would have to be.
fn is_absent(problem: &io::Error) -> bool {
    matches!(problem.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn named(path: &Path, problem: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {problem}", path.display()))
}

fn modified_ns_of(metadata: &Metadata) -> io::Result<u64> {
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    u64::try_from(since.as_nanos()).map_err(io::Error::other)
}

fn modified_ms(metadata: &Metadata) -> io::Result<i64> {
    i64::try_from(modified_ns_of(metadata)? / 1_000_000).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use testbed::Condition;

    /// A folder with one bucket, and the objects in it.
    struct World {
        folder: Folder,
        bucket: Bucket<Body>,
    }

    impl World {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("s3-folder-{name}-{}", std::process::id()));
            let folder = Folder::open(&root).unwrap();
            folder.create_bucket("b").unwrap();
            Self { folder, bucket: Bucket::default() }
        }

        fn put(&mut self, key: &str, body: &str) {
            let old = self.bucket.get(key).map(|object| object.content.clone());
            let written = self.folder.write(body.as_bytes()).unwrap();
            let etag = format!("\"{}\"", hex::encode(Md5::digest(body)));
            let kept = self.folder.keep("b", key, &etag, written, old.as_ref()).unwrap();
            assert_eq!(self.bucket.put(0, key, kept, Condition::None), Ok(etag));
        }

        fn delete(&mut self, key: &str) {
            let object = self.bucket.remove(key).unwrap();
            self.folder.remove("b", key, &object.content).unwrap();
        }

        fn bodies(&self, bucket: &Bucket<Body>) -> BTreeMap<String, (String, String)> {
            let read = |(key, object): (&str, &Object<Body>)| {
                let mut text = String::new();
                let file = self.folder.read("b", key, &object.content).unwrap();
                file.unwrap().read_to_string(&mut text).unwrap();
                assert_eq!(object.content.size, text.len() as u64);
                (key.to_owned(), (text, object.etag.clone()))
            };
            bucket.objects().map(read).collect()
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.folder.root).unwrap();
        }
    }

    #[test]
    fn any_keys_stay_distinct_and_survive_a_restart() {
        let mut world = World::new("keys");
        let long = "x".repeat(300);
        let keys = ["a/b/c", "a", "a/b", "a/b/", "a//b", "./a", "../b/a", "/", "a/b/c/d", "é", "nul\0", &long, "%"];
        keys.iter().for_each(|key| world.put(key, key));
        keys.iter().for_each(|key| world.put(key, &format!("{key} again")));
        let expected: Vec<String> = keys.iter().map(|key| format!("{key} again")).collect();
        let bodies = world.bodies(&world.bucket);
        assert_eq!(keys.map(|key| bodies[key].0.clone()).to_vec(), expected);
        let reopened = Folder::open(&world.folder.root).unwrap().load("b").unwrap();
        assert_eq!(world.bodies(&reopened), bodies);
        assert_eq!(fs::read_to_string(world.folder.root.join("b/a/b/c")).unwrap(), "a/b/c again");
        keys.iter().for_each(|key| world.delete(key));
        assert_eq!(fs::read_dir(world.folder.root.join("b")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(world.folder.descriptions("b")).unwrap().count(), 0);
    }

    #[test]
    fn files_changed_by_hand_are_seen_after_a_restart() {
        let mut world = World::new("others");
        ["kept", "replaced", "removed"].iter().for_each(|key| world.put(key, key));
        let root = world.folder.root.join("b");
        fs::write(root.join("replaced"), "by hand").unwrap();
        fs::remove_file(root.join("removed")).unwrap();
        fs::create_dir(root.join("new")).unwrap();
        fs::write(root.join("new/file"), "new").unwrap();
        let bodies = world.bodies(&world.folder.load("b").unwrap());
        let texts: Vec<_> = bodies.iter().map(|(key, (text, _))| (key.as_str(), text.as_str())).collect();
        assert_eq!(texts, [("kept", "kept"), ("new/file", "new"), ("replaced", "by hand")]);
        assert_eq!(bodies["new/file"].1, format!("\"{}\"", hex::encode(Md5::digest("new"))));
    }

    #[rstest]
    #[case("a", true)]
    #[case("a/..b/.c/d...", true)]
    #[case("", false)]
    #[case("/a", false)]
    #[case("a/", false)]
    #[case("a//b", false)]
    #[case("..", false)]
    #[case("../other-bucket/a", false)]
    #[case("a/./b", false)]
    #[case("a\0", false)]
    fn keys_that_would_name_another_file_name_none(#[case] key: &str, #[case] expected: bool) {
        assert_eq!(is_file_name(key), expected);
    }
}
