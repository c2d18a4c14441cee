//! Cuts a template into text and actions, and actions into words.

use serde_json::Value;

use super::{Block, Expression, NESTING_MAX, Node, TEMPLATE_LEN_MAX, TemplateError};

/// What stands between `{{` and `}}`, or around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// How a list of nodes came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Template,
    Else,
    End,
}

/// Parses a template.
pub(super) fn parse(template: &str) -> Result<Vec<Node>, TemplateError> {
    if template.len() > TEMPLATE_LEN_MAX {
        return Err(TemplateError::TooLong);
    }
    let pieces = cut(template)?;
    let mut rest = pieces.as_slice();
    match nodes(&mut rest, 0)? {
        (nodes, Stop::Template) => Ok(nodes),
        (_, Stop::Else) => Err(TemplateError::NoBlock { word: "else" }),
        (_, Stop::End) => Err(TemplateError::NoBlock { word: "end" }),
    }
}

fn cut(template: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut trim = false;
    while let Some((text, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
        let text = if trim { text.trim_start() } else { text };
        // A dash counts with a space behind it only: {{-3}} is a number.
        let (action, trim_before) = match action.strip_prefix('-') {
            Some(inner) if inner.starts_with(char::is_whitespace) => (inner, true),
            _ => (action, false),
        };
        let (action, trim_after) = match action.strip_suffix('-') {
            Some(inner) if inner.ends_with(char::is_whitespace) => (inner, true),
            _ => (action, false),
        };
        pieces.push(Piece::Text(if trim_before {
            text.trim_end()
        } else {
            text
        }));
        let action = action.trim();
        let is_comment = action.starts_with("/*") && action.ends_with("*/");
        if !is_comment {
            pieces.push(Piece::Action(action));
        }
        (rest, trim) = (after, trim_after);
    }
    pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }));
    Ok(pieces)
}

fn nodes(rest: &mut &[Piece<'_>], depth: usize) -> Result<(Vec<Node>, Stop), TemplateError> {
    let mut nodes = Vec::new();
    while let Some((piece, others)) = rest.split_first() {
        *rest = others;
        let action = match *piece {
            Piece::Text("") => continue,
            Piece::Text(text) => {
                nodes.push(Node::Text(text.to_owned()));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, argument) = action
            .split_once(char::is_whitespace)
            .unwrap_or((action, ""));
        nodes.push(match word {
            "end" if argument.is_empty() => return Ok((nodes, Stop::End)),
            "else" if argument.is_empty() => return Ok((nodes, Stop::Else)),
            "range" => Node::Range(block("range", argument, rest, depth)?),
            "if" => Node::If(block("if", argument, rest, depth)?),
            _ => Node::Print(expression(action)?),
        });
    }
    Ok((nodes, Stop::Template))
}

fn block(
    kind: &'static str,
    over: &str,
    rest: &mut &[Piece<'_>],
    depth: usize,
) -> Result<Block, TemplateError> {
    if depth >= NESTING_MAX {
        return Err(TemplateError::TooDeep);
    }
    let over = expression(over)?;
    let (body, end) = nodes(rest, depth + 1)?;
    let (otherwise, end) = if end == Stop::Else {
        nodes(rest, depth + 1)?
    } else {
        (Vec::new(), end)
    };
    match end {
        Stop::End => Ok(Block {
            over,
            body,
            otherwise,
        }),
        Stop::Else => Err(TemplateError::NoBlock { word: "else" }),
        Stop::Template => Err(TemplateError::NoEnd { block: kind }),
    }
}

/// Parses one action that yields a value.
fn expression(action: &str) -> Result<Expression, TemplateError> {
    let misunderstood = || TemplateError::NotUnderstood {
        action: action.to_owned(),
    };
    let words = words(action).ok_or_else(misunderstood)?;
    let mut rest = words.as_slice();
    let parsed = pipeline(&mut rest, 0)?;
    parsed.filter(|_| rest.is_empty()).ok_or_else(misunderstood)
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
enum Word {
    Open,
    /// `)` and the fields behind it.
    Close(Vec<String>),
    Pipe,
    /// `.`, `.A.B`, `$`, `$.A`.
    Path {
        whole: bool,
        fields: Vec<String>,
    },
    Literal(Value),
    Function(String),
}

fn words(action: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '(' => (Word::Open, &rest[1..]),
            '|' => (Word::Pipe, &rest[1..]),
            ')' => {
                let (fields, after) = fields(&rest[1..])?;
                (Word::Close(fields), after)
            }
            '"' => quoted(&rest[1..])?,
            '`' => {
                let (text, after) = rest[1..].split_once('`')?;
                (Word::Literal(text.into()), after)
            }
            '.' | '$' => path(first, rest)?,
            _ => {
                let end = rest
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                let word = match word.parse::<u64>() {
                    Ok(number) => Word::Literal(number.into()),
                    Err(_) if word.is_empty() => return None,
                    Err(_) => Word::Function(word.to_owned()),
                };
                (word, after)
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Some(words)
}

/// A text up to its closing quote, with Go's commonest escapes.
fn quoted(text: &str) -> Option<(Word, &str)> {
    let (mut value, mut chars) = (String::new(), text.chars());
    loop {
        value.push(match chars.next()? {
            '"' => return Some((Word::Literal(value.into()), chars.as_str())),
            '\\' => match chars.next()? {
                'n' => '\n',
                't' => '\t',
                other @ ('"' | '\\') => other,
                _ => return None,
            },
            other => other,
        });
    }
}

fn path(first: char, text: &str) -> Option<(Word, &str)> {
    let whole = first == '$';
    let after = if whole { &text[1..] } else { text };
    // A dot alone is the value at hand.
    let lone =
        !whole && !after[1..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
    let (fields, after) = if lone {
        (Vec::new(), &after[1..])
    } else {
        fields(after)?
    };
    Some((Word::Path { whole, fields }, after))
}

/// Reads `.A.B`, which may be empty.
fn fields(text: &str) -> Option<(Vec<String>, &str)> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(after) = rest.strip_prefix('.') {
        let end = after
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(after.len());
        if end == 0 {
            return None;
        }
        let (name, after) = after.split_at(end);
        names.push(name.to_owned());
        rest = after;
    }
    Some((names, rest))
}

fn with_fields(of: Expression, fields: &[String]) -> Expression {
    fields
        .iter()
        .fold(of, |of, name| Expression::Field(Box::new(of), name.clone()))
}

/// `command | command …`; `None` if the words make none.
fn pipeline(rest: &mut &[Word], depth: usize) -> Result<Option<Expression>, TemplateError> {
    let Some(mut value) = command(rest, None, depth)? else {
        return Ok(None);
    };
    while let Some((Word::Pipe, after)) = rest.split_first() {
        *rest = after;
        match command(rest, Some(value), depth)? {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// A function and its operands, or one operand; what was piped in is the last operand.
fn command(
    rest: &mut &[Word],
    piped: Option<Expression>,
    depth: usize,
) -> Result<Option<Expression>, TemplateError> {
    let Some((Word::Function(name), after)) = rest.split_first() else {
        // A value takes nothing in.
        return Ok(operand(rest, depth)?.filter(|_| piped.is_none()));
    };
    *rest = after;
    let mut operands = Vec::new();
    while let Some(operand) = operand(rest, depth)? {
        operands.push(operand);
    }
    operands.extend(piped);
    let mut operands = operands.into_iter().map(Box::new);
    let made = match (name.as_str(), operands.next(), operands.next()) {
        ("len", Some(of), None) => Expression::Len(of),
        ("json", Some(of), None) => Expression::Json(of),
        ("index", Some(of), Some(key)) => Expression::Index(of, key),
        _ => return Ok(None),
    };
    Ok(Some(made).filter(|_| operands.next().is_none()))
}

fn operand(rest: &mut &[Word], depth: usize) -> Result<Option<Expression>, TemplateError> {
    let Some((word, after)) = rest.split_first() else {
        return Ok(None);
    };
    let (value, after) = match word {
        Word::Path { whole, fields } => {
            let root = if *whole {
                Expression::Whole
            } else {
                Expression::Dot
            };
            (with_fields(root, fields), after)
        }
        Word::Literal(value) => (Expression::Literal(value.clone()), after),
        Word::Open => {
            if depth >= NESTING_MAX {
                return Err(TemplateError::TooDeep);
            }
            let mut inner = after;
            let value = pipeline(&mut inner, depth + 1)?;
            match (value, inner.split_first()) {
                (Some(value), Some((Word::Close(fields), after))) => {
                    (with_fields(value, fields), after)
                }
                _ => return Ok(None),
            }
        }
        Word::Close(_) | Word::Pipe | Word::Function(_) => return Ok(None),
    };
    *rest = after;
    Ok(Some(value))
}
