//! The front thread: checks requests, encodes their text and compiles their constraints, in the order of submission,
//! away from the caller's thread and from the loop.

use crate::error::{panic_message, Error, Result};
use crate::grammar::{spawn_large, Grammars};
use crate::image::{Placed, Sight};
use crate::request::{check_tokens, Prompt, Request, RequestId, DEFAULT_NEW_TOKENS, UNLIMITED};
use crate::scheduler::Scheduler;
use crate::sequence::Prepared;
use crate::text::Tokenizer;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What the loop thread does with the scheduler between two steps, or with the reason why there is none any more. It
/// gives back the sending of its answer, for when the new state is published.
pub type Errand = Box<dyn FnOnce(Result<&mut Scheduler>) -> Box<dyn FnOnce()> + Send>;

/// What the front thread is told.
pub enum Call {
    Submit(Box<Request>),
    Abort(RequestId),
    Between(Errand),
    Close,
}

/// What the loop thread is told.
pub enum Command {
    Start(Box<Prepared>),
    Refuse(RequestId, Error),
    Abort(RequestId),
    Between(Errand),
    Close,
}

/// Stands for a picture in a text.
const IMAGE_MARK: &str = "<image>";

/// What a model can do besides continuing text, or in its place.
#[derive(Debug, Clone, Default)]
pub struct Abilities {
    /// How pictures come into its prompts, if it sees any.
    pub sight: Option<Sight>,
    /// It has no head.
    pub embeds_only: bool,
}

/// Checks and encodes, in the order of submission.
pub struct Front {
    /// Of the model.
    pub tokenizer: Arc<Tokenizer>,
    /// Longest sequence in tokens.
    pub context: usize,
    /// Of the model.
    pub abilities: Abilities,
    /// To the loop thread.
    pub commands: Sender<Command>,
}

impl Front {
    /// Starts the thread, which works until it is closed.
    pub fn start(self, calls: Receiver<Call>) -> JoinHandle<()> {
        spawn_large("sglang-front", move || self.run(&calls)).expect("the system can start a thread")
    }

    fn run(self, calls: &Receiver<Call>) {
        let mut grammars = Grammars::new(self.tokenizer.clone());
        while let Ok(call) = calls.recv() {
            let command = match call {
                Call::Submit(request) => self.prepare_or_refuse(*request, &mut grammars),
                Call::Abort(id) => Command::Abort(id),
                Call::Between(errand) => Command::Between(errand),
                Call::Close => Command::Close,
            };
            let closing = matches!(command, Command::Close);
            if self.commands.send(command).is_err() || closing {
                return;
            }
        }
    }

    fn prepare_or_refuse(&self, request: Request, grammars: &mut Grammars) -> Command {
        let id = request.id;
        let prepared = catch_unwind(AssertUnwindSafe(|| self.prepare(request, grammars)));
        match prepared.unwrap_or_else(|panic| Err(Error::Closed(panic_message(&*panic)))) {
            Ok(prepared) => Command::Start(Box::new(prepared)),
            Err(error) => Command::Refuse(id, error),
        }
    }

    fn prepare(&self, request: Request, grammars: &mut Grammars) -> Result<Prepared> {
        request.validate(self.tokenizer.vocab())?;
        if self.abilities.embeds_only && request.pooling.is_none() {
            let message = "the model has no head, so it cannot generate or score: ask for embeddings (/v1/embeddings)";
            return Err(Error::BadRequest { param: None, message: message.into() });
        }
        let (prompt, images) = match request.images.is_empty() && !self.has_mark(&request.prompt) {
            true => (self.encode(&request.prompt)?, Vec::new()),
            false => self.place_images(&request.prompt, &request.images)?,
        };
        let max_new = self.max_new(prompt.len(), request.sampling.max_new_tokens)?;
        let grammar = request.sampling.constraint.as_ref().map(|c| grammars.start(c)).transpose()?;
        Ok(Prepared {
            id: request.id,
            prompt,
            images,
            image_token: self.mark().unwrap_or(0),
            sampling: request.sampling,
            logprobs: request.logprobs,
            pooling: request.pooling,
            max_new,
            priority: request.priority,
            namespace: request.namespace,
            grammar,
        })
    }

    fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Text(text) => self.tokenizer.encode(text, true),
            Prompt::Tokens(tokens) => {
                check_tokens("input_ids", tokens.iter().copied(), self.tokenizer.vocab())?;
                Ok(tokens.clone())
            }
        }
    }

    /// The token that stands for a picture, where model and vocabulary have one.
    fn mark(&self) -> Option<u32> {
        let mark = self.abilities.sight.as_ref()?.token.or_else(|| self.tokenizer.id_of(IMAGE_MARK));
        mark.filter(|&mark| (mark as usize) < self.tokenizer.vocab())
    }

    /// Whether a model that sees pictures is shown where one should be.
    fn has_mark(&self, prompt: &Prompt) -> bool {
        self.abilities.sight.is_some()
            && match prompt {
                Prompt::Text(text) => text.contains(IMAGE_MARK),
                Prompt::Tokens(tokens) => self.mark().is_some_and(|mark| tokens.contains(&mark)),
            }
    }

    fn place_images(&self, prompt: &Prompt, files: &[Vec<u8>]) -> Result<(Vec<u32>, Vec<Placed>)> {
        let Some(sight) = &self.abilities.sight else {
            return Err(Error::bad("image_data", "the model does not take images"));
        };
        let mark = self.mark();
        let parts = match prompt {
            Prompt::Text(text) if mark.is_none() || self.tokenizer.id_of(IMAGE_MARK) != mark => {
                let encode = |(i, part): (usize, &str)| self.tokenizer.encode(part, i == 0);
                text.split(IMAGE_MARK).enumerate().map(encode).collect::<Result<_>>()?
            }
            _ => {
                let mark = mark.ok_or_else(|| Error::bad("input_ids", "the vocabulary has no token for images"))?;
                self.encode(prompt)?.split(|&token| token == mark).map(<[u32]>::to_vec).collect()
            }
        };
        let images = files.iter().map(|file| sight.preprocess.image(file)).collect::<Result<_>>()?;
        sight.place(parts, images)
    }

    /// New tokens that prompt and context leave room for.
    fn max_new(&self, prompt: usize, asked: Option<usize>) -> Result<usize> {
        if prompt == 0 {
            return Err(Error::bad("text", "the prompt is empty: give at least one token"));
        }
        let room = self.context.saturating_sub(prompt);
        if prompt > self.context || (room == 0 && asked != Some(0)) {
            let message = format!("the prompt has {prompt} tokens; the context holds {} with its output", self.context);
            return Err(Error::ContextLength(message));
        }
        match asked {
            Some(UNLIMITED) => Ok(room),
            Some(max) if max > room => Err(Error::ContextLength(format!(
                "the prompt has {prompt} tokens and {max} new ones were asked for; the context holds {} in all: \
                 ask for at most {room}",
                self.context
            ))),
            Some(max) => Ok(max),
            None => Ok(DEFAULT_NEW_TOKENS.min(room)),
        }
    }
}
