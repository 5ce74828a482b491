//! What can be turned off in one word: `off`, `false`, or how it is to be done.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const EXPECTED: &str = "`on` or `off`";

/// `on` or `off`; YAML's booleans mean the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Switch {
    #[default]
    On,
    Off,
}

/// Something that is done, as it says, or is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switched<T> {
    On(T),
    Off,
}

impl<T: Default> Default for Switched<T> {
    fn default() -> Self {
        Self::On(T::default())
    }
}

impl<T> Switched<T> {
    /// How it is done, unless it is off.
    pub fn on(&self) -> Option<&T> {
        match self {
            Self::On(how) => Some(how),
            Self::Off => None,
        }
    }
}

impl Switch {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "on" | "true" => Some(Self::On),
            "off" | "false" => Some(Self::Off),
            _ => None,
        }
    }
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

impl<T: Default> From<Switch> for Switched<T> {
    fn from(switch: Switch) -> Self {
        match switch {
            Switch::On => Self::default(),
            Switch::Off => Self::Off,
        }
    }
}

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if *self == Self::On { "on" } else { "off" })
    }
}

impl<T: Serialize> Serialize for Switched<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::On(how) => how.serialize(serializer),
            Self::Off => Switch::Off.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_bool<E>(self, on: bool) -> Result<Switch, E> {
                Ok(on.into())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Switch, E> {
                Switch::parse(text).ok_or_else(|| E::custom(format!("expected {EXPECTED}, found `{text}`")))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Switched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct How<T>(PhantomData<T>);
        impl<'de, T: Default + Deserialize<'de>> Visitor<'de> for How<T> {
            type Value = Switched<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{EXPECTED}, or a map of fields")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Switched<T>, E> {
                Ok(Switch::from(on).into())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Switched<T>, E> {
                let switch = Switch::parse(text);
                switch.map(Switched::from).ok_or_else(|| E::custom(format!("expected {EXPECTED}, found `{text}`")))
            }

            fn visit_unit<E>(self) -> Result<Switched<T>, E> {
                Ok(Switched::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Switched<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Switched::On).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(How(PhantomData))
    }
}

impl JsonSchema for Switch {
    fn schema_name() -> Cow<'static, str> {
        "Switch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["on", "off", true, false]})
    }
}

impl<T: JsonSchema> JsonSchema for Switched<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Switched_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let how = generator.subschema_for::<T>();
        json_schema!({"anyOf": [{"enum": ["on", "off", true, false]}, how]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct How {
        #[serde(default)]
        n: u32,
    }

    #[test]
    fn off_is_a_word_or_a_boolean_and_survives_its_json() {
        let read = |text: &str| serde_saphyr::from_str::<Switched<How>>(text).map_err(|e| e.to_string());
        for off in ["off", "false", "\"off\""] {
            assert_eq!(read(off), Ok(Switched::Off), "{off}");
        }
        for on in ["on", "true", "{}"] {
            assert_eq!(read(on), Ok(Switched::On(How { n: 0 })), "{on}");
        }
        assert_eq!(read("{n: 3}"), Ok(Switched::On(How { n: 3 })));
        assert!(read("never").unwrap_err().contains("`on` or `off`"));
        assert!(read("{m: 3}").unwrap_err().contains("`m`"));
        assert_eq!(serde_json::to_string(&Switched::<How>::Off).unwrap(), r#""off""#);
        assert_eq!(serde_json::to_string(&Switched::On(How { n: 3 })).unwrap(), r#"{"n":3}"#);
        assert_eq!(serde_saphyr::from_str::<Switch>("off").unwrap(), Switch::Off);
        assert_eq!(serde_saphyr::from_str::<Switch>("true").unwrap(), Switch::On);
    }
}
