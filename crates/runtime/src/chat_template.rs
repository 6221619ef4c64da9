//! Chat templates: the Jinja templates of Hugging Face models, rendered by `minijinja`.
//!
//! The environment is that of transformers' `apply_chat_template` (`utils/chat_template_utils.py`): `trim_blocks` and `lstrip_blocks`, loop controls,
//! `raise_exception`, `strftime_now`, `tojson` without HTML escapes, `{% generation %}` marks, and the Python methods that templates call on strings
//! and dictionaries. A template comes with a model, from a stranger: it runs within a budget of work and memory, and can read nothing but the
//! variables given.

mod clock;
mod json;
mod python;

use crate::{Error, Result, Tokenizer};
use clock::Clock;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind};
use regex::{Captures, Regex};
use serde_json::Map;

/// Work one rendering may do, in minijinja's unit: an instruction, or 64 bytes of data. A long conversation of 500 messages takes some 20,000.
const FUEL: u64 = 10_000_000;

/// The longest template read, in bytes. The longest in use have 30,000.
const LONGEST_TEMPLATE: usize = 1 << 20;

/// What can be wrong with a chat template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatTemplateError {
    /// The template is no Jinja, or uses what is not built here.
    #[error("line {line}: {message}")]
    Template {
        /// Line of the template, from 1; 0 if unknown.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template refuses the conversation (`raise_exception`).
    #[error("the model's template refuses: {0}")]
    Refused(String),
    /// The template takes more work or memory than any sensible one.
    #[error("the template takes more work than is allowed ({FUEL} steps)")]
    OutOfFuel,
    /// The template is longer than any sensible one.
    #[error("the template has {0} bytes; at most {LONGEST_TEMPLATE} are read")]
    TooLong(usize),
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Texts of special tokens, by the name of their variable.
    special_tokens: Vec<(String, String)>,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles `source`. `special_tokens` are variables such as (`bos_token`, `<s>`).
    ///
    /// # Errors
    /// [`ChatTemplateError`] with the line.
    pub fn new(source: &str, special_tokens: Vec<(String, String)>) -> Result<Self> {
        Self::with_clock(source, special_tokens, Clock::System)
    }

    /// The template of a model, with its special tokens; `None` if it has none.
    ///
    /// # Errors
    /// [`ChatTemplateError`] with the line.
    pub fn from_tokenizer(tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(source) = tokenizer.chat_template() else { return Ok(None) };
        let named = [("bos_token", tokenizer.bos()), ("eos_token", tokenizer.eos())];
        let special = named.into_iter().filter_map(|(name, id)| Some((name.to_owned(), tokenizer.token_text(id?)?)));
        Self::new(source, special.collect()).map(Some)
    }

    fn with_clock(source: &str, special_tokens: Vec<(String, String)>, clock: Clock) -> Result<Self> {
        if source.len() > LONGEST_TEMPLATE {
            return Err(ChatTemplateError::TooLong(source.len()).into());
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(error)?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(200);
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(python::print);
        environment.add_filter("tojson", json::tojson);
        environment.add_test("iterable", python::is_iterable);
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, "").with_source(Raised(message)))
            },
        );
        environment.add_function("strftime_now", move |format: String| clock.now().format(&format));
        environment.add_template_owned(NAME, without_generation_marks(source)).map_err(error)?;
        Ok(Self { environment, special_tokens })
    }

    /// The text of a conversation. `add_generation_prompt`: and the beginning of the assistant's answer.
    ///
    /// # Errors
    /// [`ChatTemplateError`]: the template refuses the conversation, or fails.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let messages = messages.iter().map(|m| serde_json::json!({ "role": m.role, "content": m.content })).collect();
        let mut variables = Map::new();
        variables.insert("messages".to_owned(), serde_json::Value::Array(messages));
        variables.insert("add_generation_prompt".to_owned(), serde_json::Value::Bool(add_generation_prompt));
        self.render_with(variables)
    }

    /// The same with any variables: `messages` with other fields, `tools`, `documents`, `enable_thinking` ...
    ///
    /// # Errors
    /// [`ChatTemplateError`]: the template refuses the conversation, or fails.
    pub fn render_with(&self, variables: Map<String, serde_json::Value>) -> Result<String> {
        let mut context = Map::new();
        context.insert("tools".to_owned(), serde_json::Value::Null);
        context.insert("documents".to_owned(), serde_json::Value::Null);
        for (name, text) in &self.special_tokens {
            context.insert(name.clone(), serde_json::Value::String(text.clone()));
        }
        context.extend(variables);
        let template = self.environment.get_template(NAME).map_err(error)?;
        template.render(Value::from(Serde(context))).map_err(|e| error(e).into())
    }
}

/// What `raise_exception` was called with, on its way out.
#[derive(Debug)]
struct Raised(String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn error(e: minijinja::Error) -> ChatTemplateError {
    let mut source = std::error::Error::source(&e);
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return ChatTemplateError::Refused(message.clone());
        }
        source = inner.source();
    }
    if e.kind() == ErrorKind::OutOfFuel {
        return ChatTemplateError::OutOfFuel;
    }
    let message = match e.detail() {
        Some(detail) => format!("{}: {detail}", e.kind()),
        None => e.kind().to_string(),
    };
    ChatTemplateError::Template { line: e.line().unwrap_or(0), message }
}

impl From<ChatTemplateError> for Error {
    fn from(e: ChatTemplateError) -> Self {
        Self::ChatTemplate(Box::new(e))
    }
}

/// `{% generation %}` marks what the assistant writes, for training; here it is a block that is always rendered.
fn without_generation_marks(source: &str) -> String {
    let Ok(marks) = Regex::new(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})") else { return source.to_owned() };
    let block = |mark: &Captures<'_>| {
        let word = if mark.get(2).is_some() { "endif" } else { "if true" };
        format!("{}{word}{}", &mark[1], &mark[3])
    };
    marks.replace_all(source, block).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        let special = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let special = special.map(|(n, t)| (n.to_owned(), t.to_owned())).to_vec();
        // 2024-07-26 09:05:03 UTC, a Friday.
        ChatTemplate::with_clock(source, special, Clock::Fixed(1_721_984_703)).expect("compiles")
    }

    fn render(source: &str) -> String {
        let messages = [Message::new("user", " Hi <there> "), Message::new("assistant", "Yes?")];
        template(source).render(&messages, true).unwrap_or_else(|e| format!("error: {e}"))
    }

    // Expected texts by jinja2 3.1.6 in transformers 5.23's environment, see tests/data/chat_templates.json for whole templates.
    #[test]
    fn features() {
        let cases = [
            (
                "{{ bos_token }}{% for m in messages %}\n  {% if m.role == 'user' %}\nU:{{ m['content'] | trim }}{% endif %}\n{% endfor %}{{ eos_token }}",
                "<s>U:Hi <there></s>",
            ),
            (
                "{{ messages[0].content.strip().upper() }}|{{ 'a-b-c'.split('-')[-1] }}|{{ 'x\\n'.rstrip('\\n') }}",
                "HI <THERE>|c|x",
            ),
            ("{{ messages[1].content.startswith('Y') }} {{ messages[1].content.endswith(('!', '?')) }}", "True True"),
            ("{% for k, v in messages[1].items() %}{{ k }}={{ v }};{% endfor %}", "role=assistant;content=Yes?;"),
            (
                "{{ {'b': [1, 2.5, none, true], 'a': '<é\"'} | tojson }}",
                "{\"b\": [1, 2.5, null, true], \"a\": \"<é\\\"\"}",
            ),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ ns.n }}",
                "2",
            ),
            ("{{ strftime_now('%d %b %Y %H:%M:%S %A %j %%') }}", "26 Jul 2024 09:05:03 Friday 208 %"),
            ("a {%- generation %} b {% endgeneration -%} c", "a b c"),
            ("{{ messages[0].get('name', 'none') }}{{ messages[0].get('name') }}", "noneNone"),
            ("{{ undefined_variable }}{% if tools %}x{% endif %}{% if tools is none %}y{% endif %}", "y"),
            (
                "{{ raise_exception('no ' + messages[0].role) }}",
                "error: chat template: the model's template refuses: no user",
            ),
            ("{{ 'a'.no_such() }}", "error: chat template: line 1: unknown method: string has no method named no_such"),
            (
                "{{ tools is iterable }}{{ messages is iterable }}{{ 'x' is iterable }}{{ 1 is iterable }}",
                "FalseTrueTrueFalse",
            ),
            (
                "{{ '{} {1} {0} {{}}'.format('a', 2).replace('{}', '') }}",
                "error: chat template: line 1: invalid operation: format: `{}` and `{0}` together",
            ),
            ("{{ '<{}:{}>{{'.format('a', 2) }}{{ '{1}{0}'.format('a', true) }}", "<a:2>{Truea"),
            ("{{ messages[1:] | length }}{{ messages[::-1][0].role }}", "1assistant"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source), expected, "{source}");
        }
    }

    #[test]
    fn hostile_templates_end() {
        let cases = [
            "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
            "{{ 'x' * 1000000000000 }}",
            "{% set ns = namespace(s='x') %}{% for i in range(1000) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% set ns = namespace(s='x' * 1000000) %}{% for i in range(1000) %}{% set ns.s = ns.s.replace('x', 'xxxxxxxxxx') %}{% endfor %}",
            "{{ 'x'.join(range(100000) | map('string')) * 100000 }}",
            "{{ ('x' * 1000000).replace('', 'y' * 1000000) }}",
        ];
        for source in cases {
            let text = render(source);
            assert!(text.starts_with("error: "), "{source}: {} bytes", text.len());
        }
        for source in ["{{", "{% if %}", "{% nope %}", "{{ 'a' | nope }}"] {
            assert!(
                ChatTemplate::new(source, Vec::new()).is_err() || render(source).starts_with("error: "),
                "{source}"
            );
        }
        let deep = format!("{}{}", "{% if true %}".repeat(100_000), "{% endif %}".repeat(100_000));
        assert!(ChatTemplate::new(&deep, Vec::new()).is_err());
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000));
        assert!(ChatTemplate::new(&deep, Vec::new()).is_err());
    }
}
