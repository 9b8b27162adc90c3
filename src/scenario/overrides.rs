//! `--set a.b=c`: keys of a scenario changed from the command line, before it is read.

use toml_edit::{DocumentMut, Item, Table, TomlError, Value};

use super::error::ScenarioError;

/// Sets `path = value` in the text of a scenario. The value is TOML; what is not is taken as a string.
/// `replicas.count` without a number sets it in every `[[replicas]]` table.
///
/// # Errors
/// If the text is not TOML, the assignment has no `=`, or the path runs through something that holds no keys.
pub fn set(file: &str, text: &str, assignment: &str) -> Result<String, ScenarioError> {
    let mistake = |message: String| {
        ScenarioError::of_file(&format!("--set {assignment}"), message)
            .help("write --set key=value, such as --set workload.rate_scale=2")
    };
    let (path, value) = assignment.split_once('=').ok_or_else(|| mistake("there is no `=`".into()))?;
    let value = value.trim();
    let value: Value = match value.parse() {
        Ok(value) => value,
        Err(error) if value.starts_with(['[', '{', '"', '\'']) => {
            return Err(mistake(format!("`{value}` is not TOML: {}", error.message())));
        }
        Err(_) => Value::from(value),
    };
    let mut document: DocumentMut =
        text.parse().map_err(|error: TomlError| ScenarioError::of_file(file, error.to_string()))?;
    let parts: Vec<&str> = path.trim().split('.').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(mistake(format!("`{path}` is no key")));
    }
    set_in_item(document.as_item_mut(), &parts, &value).map_err(mistake)?;
    Ok(document.to_string())
}

fn set_in_item(item: &mut Item, parts: &[&str], value: &Value) -> Result<(), String> {
    let (first, rest) = (parts[0], &parts[1..]);
    match item {
        Item::ArrayOfTables(tables) => match first.parse::<usize>() {
            Ok(index) => {
                let count = tables.len();
                let table = tables
                    .get_mut(index)
                    .ok_or_else(|| format!("there are {count} tables, counted from 0"))?;
                if rest.is_empty() {
                    Err("name a key of the table".into())
                } else {
                    set_in_table(table, rest, value)
                }
            }
            Err(_) => tables.iter_mut().try_for_each(|table| set_in_table(table, parts, value)),
        },
        Item::Table(table) => set_in_table(table, parts, value),
        Item::Value(Value::InlineTable(table)) => {
            let place = table.entry(first).or_insert_with(|| Value::InlineTable(Default::default()));
            set_in_value(place, rest, value)
        }
        Item::Value(Value::Array(tables)) => {
            let Ok(index) = first.parse::<usize>() else {
                return Err(format!("`{first}` is asked of a list; write the place, counted from 0"));
            };
            let count = tables.len();
            let place = tables.get_mut(index).ok_or_else(|| format!("there are {count}, counted from 0"))?;
            set_in_value(place, rest, value)
        }
        _ => Err(format!("`{first}` is asked of something that holds no keys")),
    }
}

/// Sets what stands there, or something within it.
fn set_in_value(place: &mut Value, rest: &[&str], value: &Value) -> Result<(), String> {
    if rest.is_empty() {
        *place = value.clone();
        return Ok(());
    }
    let mut inner = Item::Value(place.clone());
    set_in_item(&mut inner, rest, value)?;
    if let Item::Value(inner) = inner {
        *place = inner;
    }
    Ok(())
}

fn set_in_table(table: &mut Table, parts: &[&str], value: &Value) -> Result<(), String> {
    let (first, rest) = (parts[0], &parts[1..]);
    if rest.is_empty() {
        table.insert(first, Item::Value(value.clone()));
        return Ok(());
    }
    if rest[0].parse::<usize>().is_ok() && !table.contains_key(first) {
        return Err(format!("there are no [[{first}]] tables to count"));
    }
    let inner = table.entry(first).or_insert_with(|| Item::Table(Table::new()));
    set_in_item(inner, rest, value)
}

/// Lays the keys of `over` onto `base`, tables into tables; a key of an array of tables goes into each.
pub(super) fn merge(base: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(over)) => merge(inner, over),
            (Some(toml::Value::Array(tables)), toml::Value::Table(over)) => {
                for table in tables.iter_mut() {
                    if let toml::Value::Table(table) = table {
                        merge(table, over);
                    }
                }
            }
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "seed = 1\n[[replicas]]\nmodel = \"a\"\n[[replicas]]\nmodel = \"b\"\n";

    #[test]
    fn keys_are_set_where_they_belong() {
        let text = set("s", TEXT, "seed=7").unwrap();
        assert!(text.contains("seed = 7"));
        let text = set("s", TEXT, "replicas.count=3").unwrap();
        assert_eq!(text.matches("count = 3").count(), 2);
        let text = set("s", TEXT, "replicas.1.gpu=h100-sxm").unwrap();
        assert!(text.contains("model = \"b\"\ngpu = \"h100-sxm\""));
        let text = set("s", TEXT, "router.view.poll_interval_ms=50").unwrap();
        let inline = set("s", "events = [{ at_s = 1.0 }, { at_s = 2.0 }]", "events.1.at_s=5.0").unwrap();
        assert!(inline.contains("{ at_s = 1.0 }") && inline.contains("at_s = 5.0"), "{inline}");
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["router"]["view"]["poll_interval_ms"].as_integer(), Some(50));
    }

    #[test]
    fn wrong_assignments_say_why() {
        for (assignment, what) in [
            ("seed", "no `="),
            ("=1", "no key"),
            ("replicas.9.gpu=x", "2 tables"),
            ("seed.a=1", "holds no keys"),
            ("events.0.at_s=1", "no [[events]] tables"),
            ("events=[{ kind = ", "is not TOML"),
        ] {
            let message = set("s", TEXT, assignment).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        }
    }
}
