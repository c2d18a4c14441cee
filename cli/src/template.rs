//! The part of Go's template language that scripts use with `weave report -f`.
//!
//! ```text
//!  text {{ action }} text          {{- and -}} take the white space before and after with them
//!
//!  {{.Router.Name}}                a field, of a field; {{.}} is the value at hand, {{$}} the whole
//!  {{range .Router.Targets}}…{{else}}…{{end}}    once for each; `.` is the element then
//!  {{if .Router.Peers}}…{{else}}…{{end}}         unless it is false, zero, empty or missing
//!  {{len X}}  {{json X}}  {{index X 0}}  {{"text"}}  {{X | json}}  {{(index X 0).Name}}
//! ```
//!
//! Template ─ parse ─► [`Node`]s ─ render over JSON ─► text. Bounds: [`TEMPLATE_LEN_MAX`], [`NESTING_MAX`].

mod parse;

use serde_json::Value;

/// Longest template in bytes; a person types a line, a script a page.
const TEMPLATE_LEN_MAX: usize = 64 << 10;
/// Deepest nesting of blocks and parentheses: it is recursion here.
const NESTING_MAX: usize = 32;

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("template: longer than {TEMPLATE_LEN_MAX} bytes")]
    TooLong,
    #[error("template: nested deeper than {NESTING_MAX}")]
    TooDeep,
    #[error(
        "template: {{{{{action}}}}} is not understood; known are field paths, range, if, else, end, len, json, index"
    )]
    NotUnderstood { action: String },
    #[error("template: {{{{ without }}}}")]
    Unclosed,
    #[error("template: {{{{{block}}}}} has no {{{{end}}}}")]
    NoEnd { block: &'static str },
    #[error("template: {{{{{word}}}}} outside of a range or if")]
    NoBlock { word: &'static str },
    #[error("template: no field {field} here; there are {known}")]
    NoField { field: String, known: String },
    #[error("template: {function} of {found} makes no sense")]
    NoSense {
        function: &'static str,
        found: &'static str,
    },
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Print(Expression),
    Range(Block),
    If(Block),
}

/// What depends on a value.
#[derive(Debug, Clone, PartialEq)]
struct Block {
    over: Expression,
    body: Vec<Node>,
    otherwise: Vec<Node>,
}

/// What yields a value.
#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Dot,
    Whole,
    Literal(Value),
    Field(Box<Self>, String),
    Len(Box<Self>),
    Json(Box<Self>),
    Index(Box<Self>, Box<Self>),
}

/// Fills a template with a value.
///
/// # Errors
///
/// Where the template is wrong, or asks for what is not there.
pub(crate) fn render(template: &str, whole: &Value) -> Result<String, TemplateError> {
    let nodes = parse::parse(template)?;
    let mut text = String::new();
    let scope = Scope { whole, dot: whole };
    scope.render(&nodes, &mut text)?;
    Ok(text)
}

/// The values at hand.
#[derive(Clone, Copy)]
struct Scope<'a> {
    whole: &'a Value,
    dot: &'a Value,
}

impl Scope<'_> {
    fn render(self, nodes: &[Node], text: &mut String) -> Result<(), TemplateError> {
        for node in nodes {
            match node {
                Node::Text(part) => text.push_str(part),
                Node::Print(expression) => text.push_str(&shown(&self.value(expression)?)),
                Node::If(block) => {
                    let chosen = if is_true(&self.value(&block.over)?) {
                        &block.body
                    } else {
                        &block.otherwise
                    };
                    self.render(chosen, text)?;
                }
                Node::Range(block) => self.range(block, text)?,
            }
        }
        Ok(())
    }

    fn range(self, block: &Block, text: &mut String) -> Result<(), TemplateError> {
        let elements: Vec<Value> = match self.value(&block.over)? {
            Value::Null => Vec::new(),
            Value::Array(elements) => elements,
            Value::Object(fields) => fields.into_iter().map(|(_, value)| value).collect(),
            other @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                return Err(no_sense("range", &other));
            }
        };
        if elements.is_empty() {
            return self.render(&block.otherwise, text);
        }
        for element in &elements {
            let inner = Scope {
                whole: self.whole,
                dot: element,
            };
            inner.render(&block.body, text)?;
        }
        Ok(())
    }

    fn value(self, expression: &Expression) -> Result<Value, TemplateError> {
        Ok(match expression {
            Expression::Dot => self.dot.clone(),
            Expression::Whole => self.whole.clone(),
            Expression::Literal(value) => value.clone(),
            Expression::Field(of, name) => field(&self.value(of)?, name)?,
            Expression::Len(of) => length(&self.value(of)?)?.into(),
            Expression::Json(of) => Value::String(self.value(of)?.to_string()),
            Expression::Index(of, key) => element(&self.value(of)?, &self.value(key)?)?,
        })
    }
}

fn field(value: &Value, name: &str) -> Result<Value, TemplateError> {
    let Value::Object(fields) = value else {
        return Err(no_sense("a field", value));
    };
    fields.get(name).cloned().ok_or_else(|| {
        let known: Vec<&str> = fields.keys().map(String::as_str).collect();
        TemplateError::NoField {
            field: name.to_owned(),
            known: known.join(", "),
        }
    })
}

fn length(value: &Value) -> Result<usize, TemplateError> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(elements) => Ok(elements.len()),
        Value::Object(fields) => Ok(fields.len()),
        Value::Null => Ok(0),
        Value::Bool(_) | Value::Number(_) => Err(no_sense("len", value)),
    }
}

fn element(value: &Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::Object(_), Value::String(name)) => field(value, name),
        (Value::Array(elements), Value::Number(at)) => {
            let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| elements.get(at))
                .cloned()
                .ok_or_else(|| TemplateError::NoField {
                    field: key.to_string(),
                    known: format!("{} elements, counted from 0", elements.len()),
                })
        }
        _ => Err(no_sense("index", value)),
    }
}

fn no_sense(function: &'static str, value: &Value) -> TemplateError {
    let found = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a record",
    };
    TemplateError::NoSense { function, found }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(shown).collect();
            format!("[{}]", elements.join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}:{}", shown(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str) -> Result<String, TemplateError> {
        let value = json!({
            "Ready": true,
            "Router": {
                "Name": "7a:00:00:00:00:01",
                "Port": 6783,
                "Targets": ["host1", "host2:7000"],
                "Peers": [{"NickName": "one"}, {"NickName": "two"}],
                "TrustedSubnets": [],
            },
            "DNS": null,
        });
        render(template, &value)
    }

    #[test]
    fn what_scripts_use_gives_what_go_gives() {
        for (template, wanted) in [
            ("", ""),
            ("plain", "plain"),
            ("{{.Router.Name}}", "7a:00:00:00:00:01"),
            ("{{ .Ready }} {{.Router.Port}}", "true 6783"),
            (
                "{{range .Router.Targets}}{{.}}\n{{end}}",
                "host1\nhost2:7000\n",
            ),
            ("{{range .Router.Peers}}{{.NickName}},{{end}}", "one,two,"),
            (
                "{{range .Router.TrustedSubnets}}x{{else}}none{{end}}",
                "none",
            ),
            ("{{range .DNS}}x{{end}}", ""),
            ("{{len .Router.Targets}}", "2"),
            ("{{json .Router.Targets}}", r#"["host1","host2:7000"]"#),
            ("{{.Router.Targets | json}}", r#"["host1","host2:7000"]"#),
            ("{{.Router.Targets | len}}", "2"),
            ("{{.Router.Targets}}", "[host1 host2:7000]"),
            ("{{(index .Router.Peers 1).NickName}}", "two"),
            ("{{index .Router \"Port\"}}", "6783"),
            ("{{if .DNS}}dns{{else}}no dns{{end}}", "no dns"),
            ("{{if .Router.Targets}}some{{end}}", "some"),
            ("a {{- .Ready -}} b", "atrueb"),
            ("a{{/* why */}}b", "ab"),
            (
                "{{range .Router.Peers}}{{$.Router.Port}} {{end}}",
                "6783 6783 ",
            ),
            (
                "{{range .Router.Peers}}{{if .NickName}}{{.NickName}}{{end}}{{end}}",
                "onetwo",
            ),
            (
                "{{json .}}{{.DNS}}",
                &format!("{}<nil>", filled("{{json $}}").unwrap()),
            ),
            (r#"{{"a\n\"b\""}}{{`\n`}}"#, "a\n\"b\"\\n"),
        ] {
            assert_eq!(filled(template).as_deref(), Ok(wanted), "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |template: &str| filled(template).unwrap_err().to_string();
        assert!(said("{{.Router.Nme}}").contains("no field Nme here; there are Name, "));
        assert!(
            said("{{frobnicate .Router}}").contains("{{frobnicate .Router}} is not understood")
        );
        assert!(said("{{.Router").contains("without }}"));
        assert!(said("{{range .Router.Peers}}").contains("{{range}} has no {{end}}"));
        assert!(said("{{end}}").contains("{{end}} outside"));
        assert!(said("{{if .DNS}}{{else}}{{else}}{{end}}").contains("{{else}} outside"));
        assert!(said("{{len .Ready}}").contains("len of a truth value"));
        assert!(said("{{index .Router.Peers 7}}").contains("2 elements"));
        assert!(said("{{.Ready.Now}}").contains("a field of a truth value"));
        for broken in [
            "{{}}",
            "{{.A B}}",
            "{{(.A}}",
            "{{.A)}}",
            "{{\"a}}",
            "{{| json}}",
            "{{..}}",
        ] {
            assert!(
                said(broken).contains("is not understood"),
                "{broken}: {}",
                said(broken)
            );
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let deep = "{{if .Ready}}".repeat(NESTING_MAX + 1) + &"{{end}}".repeat(NESTING_MAX + 1);
        assert_eq!(filled(&deep), Err(TemplateError::TooDeep));
        let parentheses = format!("{{{{{}.{}}}}}", "(".repeat(1000), ")".repeat(1000));
        assert_eq!(filled(&parentheses), Err(TemplateError::TooDeep));
        let long = "x".repeat(TEMPLATE_LEN_MAX + 1);
        assert_eq!(filled(&long), Err(TemplateError::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn no_template_panics(template in r#"(\{\{-?|-?\}\}|\.|[a-z ]{0,4}|range |if |end|else|len |json |index |\(|\)|\||"|[0-9]){0,40}"#) {
            let _ = filled(&template);
        }
    }
}
