//! The bucket that batches land in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;

use bzip2::read::MultiBzDecoder;
use kinesis_to_s3_lambda::encode::Object;
use kinesis_to_s3_lambda::landing::{Condition, Found, HeadError, ObjectStore, PutError};
use md5::{Digest, Md5};
use shared::object::ObjectMetadata;
use testbed::{Bucket, Content};

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Landed {
    pub(crate) text: Vec<u8>,
    pub(crate) metadata: ObjectMetadata,
}

/// How often an object is kept that is said to be stored.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) enum Keeps {
    #[default]
    Once,
    Never,
    Twice,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    keeps: Keeps,
    bucket: RefCell<Bucket<Landed>>,
}

impl MemoryStore {
    pub(crate) fn keeping(keeps: Keeps) -> Self {
        Self { keeps, ..Self::default() }
    }

    pub(crate) fn landed(&self) -> BTreeMap<String, Landed> {
        self.bucket.borrow().objects().map(|(key, object)| (key.to_owned(), object.content.clone())).collect()
    }
}

impl Content for Landed {
    fn size(&self) -> u64 {
        self.text.len() as u64
    }

    fn md5(&self) -> [u8; 16] {
        Md5::digest(&self.text).into()
    }

    fn metadata_bytes(&self) -> usize {
        self.metadata.to_entries().iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn assembled(&self, _: &[Self]) -> Self {
        unreachable!("objects are put whole")
    }
}

impl ObjectStore for &MemoryStore {
    async fn put(&self, key: &str, object: &Object, condition: &Condition) -> Result<(), PutError> {
        assert_eq!(*condition, Condition::Absent);
        let mut text = Vec::new();
        MultiBzDecoder::new(&object.body[..]).read_to_end(&mut text).unwrap();
        let landed = Landed { text, metadata: object.metadata.clone() };
        let keys = match self.keeps {
            Keeps::Once => vec![key.to_owned()],
            Keeps::Never => vec![],
            Keeps::Twice => vec![key.to_owned(), format!("{key}-again")],
        };
        for key in keys {
            self.bucket.borrow_mut().put(0, &key, landed.clone(), testbed::Condition::Absent).unwrap();
        }
        Ok(())
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, HeadError> {
        unreachable!("{key} is looked at")
    }
}
