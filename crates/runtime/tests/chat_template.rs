//! Chat templates against transformers' rendering of the same template and conversation.

mod common;

use quant_runtime::chat_template::{ChatTemplate, Message};
use serde_json::Value;

/// All differences between a file's renderings and ours. What a template refuses must be refused, in words of our own.
fn differences(file: &Value) -> (usize, Vec<String>) {
    let special = file["provenance"]["special_tokens"].as_object().expect("special tokens");
    let special: Vec<(String, String)> =
        special.iter().map(|(name, text)| (name.clone(), text.as_str().expect("text").to_owned())).collect();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in file["templates"].as_array().expect("templates") {
        let name = case["name"].as_str().expect("name");
        let template = match ChatTemplate::new(case["template"].as_str().expect("template"), special.clone()) {
            Ok(template) => template,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        for (conversation, expected) in case["renderings"].as_object().expect("renderings") {
            let variables = file["conversations"][conversation].as_object().expect("variables").clone();
            let found = template.render_with(variables);
            compared += 1;
            match (&found, expected["text"].as_str()) {
                (Ok(found), Some(expected)) if found == expected => {}
                (Err(_), None) => {}
                // Python stumbles over a type (a loop over None) where minijinja goes on.
                (Ok(_), None) if !expected["error"].as_str().unwrap_or_default().starts_with("TemplateError") => {}
                _ => wrong.push(format!("{name}, {conversation}:\n  found    {found:?}\n  expected {expected}")),
            }
        }
    }
    (compared, wrong)
}

#[test]
fn equal_to_transformers() {
    let file = serde_json::from_str(include_str!("data/chat_templates.json")).expect("golden file");
    let (compared, wrong) = differences(&file);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(compared, 66);
}

/// The same with templates of other people, which are not kept here: the variable names a file of the same form.
#[test]
fn equal_to_transformers_on_other_templates() {
    let Some(path) = common::from_environment("QUANT_CHAT_CASES") else { return };
    let file = serde_json::from_slice(&std::fs::read(path).expect("reads")).expect("JSON");
    let (compared, wrong) = differences(&file);
    println!("{compared} renderings, {} differ", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_refusal_says() {
    let source = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}ok";
    let template = ChatTemplate::new(source, Vec::new()).expect("compiles");
    assert_eq!(template.render(&[Message::new("user", "x")], true).expect("renders"), "ok");
    let error = template.render(&[Message::new("system", "x")], true).expect_err("refused").to_string();
    assert_eq!(error, "chat template: the model's template refuses: System role not supported");
}
