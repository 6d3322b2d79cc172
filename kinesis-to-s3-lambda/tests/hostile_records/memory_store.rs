//! A bucket in memory, whose objects are decompressed as they come.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;

use bzip2::read::MultiBzDecoder;
use kinesis_to_s3_lambda::encode::Object;
use kinesis_to_s3_lambda::landing::{Condition, Found, HeadError, ObjectStore, PutError};
use shared::object::ObjectMetadata;

/// An object.
#[derive(Debug, PartialEq, Eq)]
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
    pub(crate) keeps: Keeps,
    pub(crate) objects: RefCell<BTreeMap<String, Landed>>,
}

impl ObjectStore for &MemoryStore {
    async fn put(&self, key: &str, object: &Object, condition: &Condition) -> Result<(), PutError> {
        assert_eq!(*condition, Condition::Absent);
        let mut text = Vec::new();
        MultiBzDecoder::new(&object.body[..]).read_to_end(&mut text).unwrap();
        let keys = match self.keeps {
            Keeps::Once => vec![key.to_owned()],
            Keeps::Never => vec![],
            Keeps::Twice => vec![key.to_owned(), format!("{key}-again")],
        };
        for key in keys {
            let landed = Landed { text: text.clone(), metadata: object.metadata.clone() };
            assert!(self.objects.borrow_mut().insert(key, landed).is_none(), "an object is written twice");
        }
        Ok(())
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, HeadError> {
        unreachable!("{key} is looked at")
    }
}
