//! Types in TypeScript, of an AsyncAPI document: one map of events for each gateway, in the form that
//! `EventClient<Map>` takes. Knows documents; nothing of what made them.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// All types of a document.
pub fn of_asyncapi(document: &Value) -> String {
    let mut out = String::from(HEAD);
    let schemas = document["components"]["schemas"].as_object();
    for (name, schema) in schemas.into_iter().flatten() {
        define(&mut out, &identifier(name), schema);
    }
    let channels = document["channels"].as_object();
    for (key, channel) in channels.into_iter().flatten() {
        map_of(&mut out, key, channel, document);
    }
    out
}

const HEAD: &str = "// Written by `tidegate generate types`: what the gateways speak.\n";

/// A string takes every text.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
    out.push('\n');
}

fn define(out: &mut String, name: &str, schema: &Value) {
    out.push('\n');
    comment(out, "", schema);
    let whole = schema.as_object();
    let is_plain = |whole: &&Map<String, Value>| {
        !["oneOf", "anyOf", "allOf"]
            .iter()
            .any(|word| whole.contains_key(*word))
    };
    let fields = whole
        .filter(is_plain)
        .and_then(|whole| Some((whole, whole.get("properties")?)));
    let Some((whole, Value::Object(fields))) = fields else {
        return line(
            out,
            format_args!("export type {name} = {};", type_of(schema)),
        );
    };
    line(out, format_args!("export interface {name} {{"));
    for (field, schema) in fields {
        comment(out, "  ", schema);
        let field = field_of(field, schema, is_required(whole, field));
        line(out, format_args!("  {field};"));
    }
    out.push_str("}\n");
}

fn map_of(out: &mut String, key: &str, channel: &Value, document: &Value) {
    let title = channel["title"].as_str().unwrap_or(key);
    let (mut requests, mut events) = (String::new(), String::new());
    let here = format!("#/channels/{key}");
    let operations = document["operations"].as_object();
    for operation in operations.into_iter().flat_map(Map::values) {
        if operation["channel"]["$ref"] != here.as_str() {
            continue;
        }
        let event = property(operation["title"].as_str().unwrap_or_default());
        let data = |message: &Value| data_of(message, document);
        let asked = data(&operation["messages"][0]);
        if operation["action"] == "send" {
            line(
                &mut events,
                format_args!("    {event}: {};", asked.unwrap_or_else(unknown)),
            );
            continue;
        }
        let answer = operation
            .get("reply")
            .map(|reply| data(&reply["messages"][0]));
        let parts = asked.map(|data| format!("data: {data}")).into_iter();
        let answer = answer.map(|answer| format!("answer: {}", answer.unwrap_or_else(unknown)));
        let parts: Vec<_> = parts.chain(answer).collect();
        let shape = match parts.is_empty() {
            true => "{}".to_owned(),
            false => format!("{{ {} }}", parts.join("; ")),
        };
        line(&mut requests, format_args!("    {event}: {shape};"));
    }
    let path = channel["address"].as_str().unwrap_or_default();
    let name = identifier(title);
    line(
        out,
        format_args!("\n/** `new EventClient<{name}Events>(url)` on `{path}`. */"),
    );
    line(
        out,
        format_args!("export interface {name}Events {{\n  requests: {{\n{requests}  }};"),
    );
    line(out, format_args!("  events: {{\n{events}  }};\n}}"));
}

/// The data of a message that is referred to.
fn data_of(message: &Value, document: &Value) -> Option<String> {
    let pointer = message["$ref"].as_str()?.strip_prefix('#')?;
    let message = document.pointer(pointer)?;
    message["payload"]["properties"].get("data").map(type_of)
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// A schema as a type.
fn type_of(schema: &Value) -> String {
    let Value::Object(schema) = schema else {
        return unknown();
    };
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return identifier(reference.rsplit('/').next().unwrap_or_default());
    }
    if let Some(one) = schema.get("const") {
        return one.to_string();
    }
    for (word, between) in [
        ("enum", " | "),
        ("oneOf", " | "),
        ("anyOf", " | "),
        ("allOf", " & "),
    ] {
        if let Some(Value::Array(several)) = schema.get(word) {
            let literal = |one: &Value| one.to_string();
            let types = several.iter().map(|one| {
                if word == "enum" {
                    literal(one)
                } else {
                    type_of(one)
                }
            });
            let joined = grouped(types.collect::<Vec<_>>(), between);
            // A tagged enum has fields beside its variants.
            return match schema.get("properties") {
                Some(_) if word != "enum" => format!("{} & {joined}", object(schema)),
                _ => joined,
            };
        }
    }
    match schema.get("type") {
        Some(Value::Array(several)) => {
            let one = |name: &Value| of_kind(name.as_str().unwrap_or_default(), schema);
            grouped(several.iter().map(one).collect(), " | ")
        }
        Some(Value::String(name)) => of_kind(name, schema),
        _ if schema.contains_key("properties") => object(schema),
        _ => unknown(),
    }
}

fn of_kind(name: &str, schema: &Map<String, Value>) -> String {
    match name {
        "string" | "boolean" | "null" | "number" => name.to_owned(),
        "integer" => "number".to_owned(),
        "array" => match schema.get("prefixItems").and_then(Value::as_array) {
            Some(items) => {
                let items: Vec<_> = items.iter().map(type_of).collect();
                format!("[{}]", items.join(", "))
            }
            None => format!(
                "Array<{}>",
                schema.get("items").map_or_else(unknown, type_of)
            ),
        },
        "object" => object(schema),
        _ => unknown(),
    }
}

fn object(schema: &Map<String, Value>) -> String {
    let more = schema
        .get("additionalProperties")
        .filter(|more| more.is_object());
    let fields = schema.get("properties").and_then(Value::as_object);
    let fields: Vec<_> = fields
        .into_iter()
        .flatten()
        .map(|(name, field)| field_of(name, field, is_required(schema, name)))
        .collect();
    match (fields.is_empty(), more) {
        (true, Some(more)) => format!("Record<string, {}>", type_of(more)),
        (true, None) => "Record<string, unknown>".to_owned(),
        (false, _) => format!("{{ {} }}", fields.join("; ")),
    }
}

fn field_of(name: &str, schema: &Value, is_required: bool) -> String {
    let mark = if is_required { "" } else { "?" };
    format!("{}{mark}: {}", property(name), type_of(schema))
}

fn is_required(schema: &Map<String, Value>, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|one| one == name))
}

fn grouped(types: Vec<String>, between: &str) -> String {
    match &types[..] {
        [one] => one.clone(),
        _ => format!("({})", types.join(between)),
    }
}

fn comment(out: &mut String, indent: &str, schema: &Value) {
    if let Some(text) = schema["description"].as_str() {
        let text = text.replace("*/", "* /").replace('\n', " ");
        line(out, format_args!("{indent}/** {text} */"));
    }
}

/// A name of a type.
fn identifier(name: &str) -> String {
    let mut plain: String = name
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() {
                char
            } else {
                '_'
            }
        })
        .collect();
    if plain.is_empty() || plain.starts_with(|char: char| char.is_ascii_digit()) {
        plain.insert(0, '_');
    }
    plain
}

/// A name of a field, in quotes where it must be.
fn property(name: &str) -> String {
    let is_plain = !name.is_empty()
        && !name.starts_with(|char: char| char.is_ascii_digit())
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '_');
    match is_plain {
        true => name.to_owned(),
        false => Value::from(name).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_become_types() {
        for (schema, expected) in [
            (json!(true), "unknown"),
            (json!({}), "unknown"),
            (json!({"type": "integer", "format": "uint64"}), "number"),
            (json!({"type": ["string", "null"]}), "(string | null)"),
            (
                json!({"$ref": "#/components/schemas/Chat.Message"}),
                "Chat_Message",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                "Array<string>",
            ),
            (
                json!({"type": "array", "prefixItems": [{"type": "number"}, {"type": "null"}]}),
                "[number, null]",
            ),
            (json!({"enum": ["a", "b"]}), r#"("a" | "b")"#),
            (json!({"const": 7}), "7"),
            (
                json!({"type": "object", "additionalProperties": {"type": "boolean"}}),
                "Record<string, boolean>",
            ),
            (
                json!({"type": "object", "properties": {"a-b": {"type": "null"}, "c": {}}, "required": ["c"]}),
                r#"{ "a-b"?: null; c: unknown }"#,
            ),
            (
                json!({"anyOf": [{"$ref": "#/x/A"}, {"type": "null"}]}),
                "(A | null)",
            ),
            (
                json!({"properties": {"t": {"const": "x"}}, "required": ["t"], "oneOf": [{"$ref": "#/x/A"}]}),
                r#"{ t: "x" } & A"#,
            ),
        ] {
            assert_eq!(type_of(&schema), expected);
        }
        assert_eq!(property("say it"), r#""say it""#);
        assert_eq!(identifier("7 of*"), "_7_of_");
    }
}
