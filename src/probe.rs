//! Questions to programs whose output was not made for us, and expressions over the answers. Pure: bytes in, values or words out.
//!
//! What cannot be read is an error in words, never a guess: whoever asked keeps it as *unknown*.

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How what a program printed is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Parse {
    /// One JSON document.
    Json,
    /// A list of its lines; empty ones count.
    Lines,
    /// A table of lines `key:value` or `key=value`; empty lines, `# comments` and `[sections]` say nothing.
    Pairs,
    /// A table of lines by twos: the key, then its value.
    Twos,
}

/// A question to a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What the answer is called.
    pub name: String,
    /// The argument vector.
    pub run: Vec<String>,
    /// How its output is read; where absent, `status` and `said` (without white space around it) are the answer, whatever they are.
    pub parse: Option<Parse>,
}

impl Probe {
    /// The answer of a program that ended with `status` and printed `stdout`; `complaint` is the end of what it said.
    ///
    /// # Errors
    /// Why there is none, in words: the program failed, or what it printed is not what was said of it.
    pub fn answer(&self, status: i32, stdout: &[u8], complaint: &str) -> Result<Value, String> {
        let text = std::str::from_utf8(stdout).map_err(|_| "what it printed is no UTF-8".to_owned());
        let Some(parse) = self.parse else {
            return Ok(json!({"status": status, "said": text?.trim()}));
        };
        if status != 0 {
            return Err(match complaint {
                "" => format!("it ended with status {status}"),
                words => format!("it ended with status {status}: {words}"),
            });
        }
        parse.read(text?)
    }
}

impl Parse {
    fn read(self, text: &str) -> Result<Value, String> {
        match self {
            Parse::Json => serde_json::from_str(text).map_err(|e| format!("what it printed is no JSON: {e}")),
            Parse::Lines => Ok(text.lines().collect()),
            Parse::Pairs => {
                let says = |l: &&str| !(l.is_empty() || l.starts_with('#') || l.starts_with('['));
                let lines = text.lines().map(str::trim).filter(says);
                let pairs = lines.map(|line| match line.split_once([':', '=']) {
                    Some((key, value)) => Ok((key.trim().to_owned(), Value::from(value.trim()))),
                    None => Err(format!("`{}` is no `key:value`", line.escape_debug())),
                });
                table(pairs)
            }
            Parse::Twos => {
                let lines: Vec<&str> = text.lines().collect();
                let twos = lines.chunks(2).map(|two| match two {
                    [key, value] => Ok(((*key).to_owned(), Value::from(*value))),
                    _ => Err(format!("the last of {} lines has no value", lines.len())),
                });
                table(twos)
            }
        }
    }
}

/// A table that says something, and nothing twice.
fn table(pairs: impl Iterator<Item = Result<(String, Value), String>>) -> Result<Value, String> {
    let mut table = Map::new();
    for pair in pairs {
        let (key, value) = pair?;
        if let Some(twice) = table.insert(key.clone(), value) {
            return Err(format!("it says `{}` twice, first {twice}", key.escape_debug()));
        }
    }
    if table.is_empty() {
        return Err("it printed nothing".into());
    }
    Ok(Value::Object(table))
}

/// What an expression is evaluated in: a name that is not there is an error, at any depth.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env
}

/// Evaluates expressions.
#[derive(Debug)]
pub struct Evaluator(Environment<'static>);

impl Evaluator {
    /// With the filter `node`, which makes the name of a machine of its address.
    pub fn with_nodes(names: BTreeMap<String, String>) -> Self {
        let mut env = environment();
        env.add_filter("node", move |address: String| {
            names.get(&address).cloned().ok_or_else(|| {
                let seen = format!("no machine has the address `{}`", address.escape_debug());
                minijinja::Error::new(ErrorKind::InvalidOperation, seen)
            })
        });
        Self(env)
    }

    /// The value of an expression over `names`.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn evaluate(&self, expression: &str, names: &impl Serialize) -> Result<Value, String> {
        let value = self
            .0
            .compile_expression(expression)
            .and_then(|e| e.eval(Serde(names)))
            .map_err(|e| words(&e))?;
        if value.is_undefined() {
            return Err("what it asks for is not there".into());
        }
        serde_json::to_value(value).map_err(|e| e.to_string())
    }
}

/// The names that an expression asks for, with what it asks of them as far as that is written out: `web.a.said`.
///
/// # Errors
/// Why it is no expression.
pub fn names(expression: &str) -> Result<Vec<String>, String> {
    let env = environment();
    let compiled = env.compile_expression(expression).map_err(|e| words(&e))?;
    let mut names: Vec<String> = compiled.undeclared_variables(true).into_iter().collect();
    names.sort();
    Ok(names)
}

/// The names that a template asks for.
///
/// # Errors
/// The line, counted from 1, and why it is no template.
pub fn template_names(text: &str) -> Result<Vec<String>, (usize, String)> {
    let env = environment();
    let template = env
        .template_from_str(text)
        .map_err(|e| (e.line().unwrap_or(1), words(&e)))?;
    let mut names: Vec<String> = template.undeclared_variables(false).into_iter().collect();
    names.sort();
    Ok(names)
}

/// The value of an expression over `names`.
///
/// # Errors
/// Why there is none, in words.
pub fn evaluate(expression: &str, names: &impl Serialize) -> Result<Value, String> {
    Evaluator(environment()).evaluate(expression, names)
}

/// Whether an expression holds; it must be true or false.
///
/// # Errors
/// Why that is not known, in words.
pub fn holds(expression: &str, names: &impl Serialize) -> Result<bool, String> {
    match evaluate(expression, names)? {
        Value::Bool(holds) => Ok(holds),
        other => Err(format!("it is {other}, neither true nor false")),
    }
}

fn words(e: &minijinja::Error) -> String {
    e.detail()
        .map_or_else(|| e.kind().to_string(), |d| format!("{}: {d}", e.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn probe(parse: Option<Parse>) -> Probe {
        Probe {
            name: "x".into(),
            run: vec!["x".into()],
            parse,
        }
    }

    fn read(parse: Parse, text: &str) -> Result<Value, String> {
        probe(Some(parse)).answer(0, text.as_bytes(), "")
    }

    #[test]
    fn what_a_program_prints_becomes_a_value() {
        let answer = probe(None).answer(3, b" no such unit\n", "").unwrap();
        assert_eq!(answer, json!({"status": 3, "said": "no such unit"}));
        assert_eq!(read(Parse::Json, "{\"a\": [1]}").unwrap(), json!({"a": [1]}));
        assert_eq!(read(Parse::Lines, "a\n\nb\n").unwrap(), json!(["a", "", "b"]));
        let info = "# Replication\r\nrole:slave\r\nslave0:ip=10.0.0.1,port=6379\r\n\r\n[x]\nk = v\n";
        let pairs = json!({"role": "slave", "slave0": "ip=10.0.0.1,port=6379", "k": "v"});
        assert_eq!(read(Parse::Pairs, info).unwrap(), pairs);
        assert_eq!(
            read(Parse::Twos, "name\nha\nflags\nmaster,o_down\n").unwrap(),
            json!({"name": "ha", "flags": "master,o_down"})
        );
    }

    #[test]
    fn what_is_not_as_it_should_be_is_no_answer() {
        for (parse, text, seen) in [
            (Parse::Json, "{", "no JSON"),
            (Parse::Pairs, "role:master\nwhat\n", "`what` is no `key:value`"),
            (Parse::Pairs, "a:1\na:2\n", "`a` twice"),
            (Parse::Pairs, "\n", "printed nothing"),
            (Parse::Twos, "a\n1\nb\n", "the last of 3 lines"),
            (Parse::Twos, "", "printed nothing"),
        ] {
            let e = read(parse, text).unwrap_err();
            assert!(e.contains(seen), "{text:?}: {e}");
        }
        let failed = probe(Some(Parse::Lines)).answer(1, b"half\n", "refused").unwrap_err();
        assert_eq!(failed, "it ended with status 1: refused");
        assert!(probe(None).answer(0, &[0xff], "").is_err());
    }

    #[test]
    fn an_expression_holds_or_not_or_is_not_known() {
        let seen = json!({"web": {"a": {"said": "ok", "status": 0}}});
        assert_eq!(holds("web.a.said == 'ok' and web.a.status == 0", &seen), Ok(true));
        assert_eq!(holds("web.a.status > 0", &seen), Ok(false));
        for (expression, why) in [
            ("web.b.said == 'ok'", "undefined"),
            ("nothing", "not there"),
            ("web.a.said", "neither true nor false"),
            ("web.a.said <", "syntax error"),
            ("1 / 0 == 1", "invalid operation"),
        ] {
            let e = holds(expression, &seen).unwrap_err();
            assert!(e.contains(why), "{expression}: {e}");
        }
    }

    #[test]
    fn the_names_of_an_expression_and_a_template_are_known_before_they_are_asked() {
        assert_eq!(names("web.a.said == 'x' and db.b").unwrap(), ["db.b", "web.a.said"]);
        assert!(names("web.").is_err());
        assert_eq!(
            template_names("a {{ node.name }} {% for n in nodes %}{{ n.name }}{% endfor %}").unwrap(),
            ["node", "nodes"]
        );
        assert_eq!(template_names("a\n{{ b").unwrap_err().0, 2);
    }

    proptest! {
        #[test]
        fn garbage_is_an_answer_or_an_error(bytes: Vec<u8>, status: i32) {
            for parse in [None, Some(Parse::Json), Some(Parse::Lines), Some(Parse::Pairs), Some(Parse::Twos)] {
                let _ = probe(parse).answer(status, &bytes, "");
            }
        }
        #[test]
        fn any_text_is_an_expression_or_an_error(text in "\\PC*") {
            let _ = (names(&text), template_names(&text), evaluate(&text, &json!({"a": 1})));
        }
    }
}
