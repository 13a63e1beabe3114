use serde_json::{Map, Value, json};

use crate::{DecodeError, Object};

/// Name service settings, of a configuration or of a result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// Name servers, in order of preference.
    pub nameservers: Vec<String>,
    /// Local domain for short names.
    pub domain: Option<String>,
    /// Domains tried in order for short names.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

impl Dns {
    /// Reads the `dns` object of a configuration or result.
    ///
    /// # Errors
    /// A member has a wrong type.
    pub fn parse(object: &Object) -> Result<Self, DecodeError> {
        let domain = object.string("domain")?.filter(|text| !text.is_empty());
        Ok(Self {
            nameservers: object.strings("nameservers")?,
            domain: domain.map(str::to_owned),
            search: object.strings("search")?,
            options: object.strings("options")?,
        })
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The object, without its empty members.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        let lists = [
            ("nameservers", &self.nameservers),
            ("search", &self.search),
            ("options", &self.options),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                map.insert(key.to_owned(), json!(list));
            }
        }
        if let Some(domain) = &self.domain {
            map.insert("domain".to_owned(), json!(domain));
        }
        Value::Object(map)
    }
}
