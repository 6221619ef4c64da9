//! A conversation: a line of standard input is a message.

use super::{Prompts, report};
use crate::error::{CliError, CliResult};
use crate::output::Stream;
use quant_runtime::chat_template::Message;
use quant_runtime::generate::Generator;
use std::io::{BufRead, IsTerminal};

/// Chats until `/exit` or the end of the input. Only what is new goes through the model: the generator keeps the keys and values of the rest.
pub(super) fn run(mut generator: Generator<'_>, prompts: &Prompts<'_>, system: Option<&str>, seed: u64) -> CliResult {
    let typed = std::io::stdin().is_terminal();
    if typed {
        let plain = if prompts.template.is_none() { " No chat template: each line is continued as it is." } else { "" };
        eprintln!("Chat with the model; /clear forgets, /exit ends.{plain}");
    }
    let drawn = generator.options().sampling.temperature > 0.0;
    let mut conversation = Conversation::new(system);
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if typed {
            eprint!("> ");
        }
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.map_err(|e| CliError::Failed(format!("standard input: {e}")))?;
        match line.trim() {
            "" => continue,
            "/exit" | "/quit" => return Ok(()),
            "/clear" => {
                conversation = Conversation::new(system);
                continue;
            }
            _ => {}
        }
        conversation.messages.push(Message::new("user", line.as_str()));
        let ids = loop {
            let ids = prompts.ids(&conversation.messages, &line)?;
            // Room for an answer, too.
            if ids.len() < generator.context() || prompts.template.is_none() {
                break ids;
            }
            if !conversation.forget_oldest() {
                break ids;
            }
            eprintln!("[the context is full: the oldest messages are forgotten]");
        };
        let mut stream = Stream::stdout();
        let result = match generator.generate(&ids, |text| stream.write(text)) {
            Ok(result) => result,
            // A message that is too long is no reason to end a conversation that someone is having.
            Err(e @ quant_runtime::Error::Usage(_)) if typed => {
                eprintln!("error: {e}");
                conversation.messages.pop();
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let _ = stream.write("\n");
        if stream.is_closed() {
            return stream.finish();
        }
        stream.finish()?;
        report(&result, drawn.then_some(seed));
        conversation.messages.push(Message::new("assistant", result.text));
    }
}

struct Conversation {
    messages: Vec<Message>,
}

impl Conversation {
    fn new(system: Option<&str>) -> Self {
        Self { messages: system.map(|text| Message::new("system", text)).into_iter().collect() }
    }

    /// Drops the oldest question and its answer; what the model was told, and the last question, stay. False if nothing else is left.
    fn forget_oldest(&mut self) -> bool {
        let first = usize::from(self.messages.first().is_some_and(|m| m.role == "system"));
        if self.messages.len() < first + 3 {
            return false;
        }
        self.messages.drain(first..first + 2);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut conversation = Conversation::new(Some("s"));
        for (role, text) in [("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"), ("user", "5")] {
            conversation.messages.push(Message::new(role, text));
        }
        let texts = |c: &Conversation| c.messages.iter().map(|m| m.content.clone()).collect::<String>();
        assert!(conversation.forget_oldest());
        assert_eq!(texts(&conversation), "s345");
        assert!(conversation.forget_oldest());
        assert_eq!(texts(&conversation), "s5");
        assert!(!conversation.forget_oldest());
    }
}
