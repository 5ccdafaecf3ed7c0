//! The engine as a JavaScript class. Events of a step reach JavaScript in one call.

use crate::guarded;
use crate::types::{numbers, NativeEvent, NativeLoadOptions, NativeProgress, NativeRequest, NativeTreeNode};
use napi::bindgen_prelude::{AsyncTask, Env, ToNapiValue, TypeName};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Status, Task};
use napi_derive::napi;
use sglang_engine::engine::Reply;
use sglang_engine::grammar::{Constraint, Grammars};
use sglang_engine::{loader, loader::ModelCard, text::Tokenizer, Engine, Error};
use std::collections::HashMap;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard};

/// A JavaScript function called from other threads; it does not keep the process alive.
type Callback<T> = ThreadsafeFunction<T, (), T, Status, false, true>;

/// Work away from the JavaScript thread.
pub struct Away<T>(Option<Box<dyn FnOnce() -> Result<T, Error> + Send>>);

impl<T> Away<T> {
    fn task(body: impl FnOnce() -> Result<T, Error> + Send + 'static) -> AsyncTask<Self>
    where
        T: ToNapiValue + TypeName + Send + 'static,
    {
        AsyncTask::new(Away(Some(Box::new(body))))
    }
}

impl<T: ToNapiValue + TypeName + Send + 'static> Task for Away<T> {
    type Output = T;
    type JsValue = T;

    fn compute(&mut self) -> napi::Result<T> {
        guarded(self.0.take().expect("a task runs once"))
    }

    fn resolve(&mut self, _: Env, output: T) -> napi::Result<T> {
        Ok(output)
    }
}

/// Loads a model and starts its engine.
#[napi(ts_return_type = "Promise<NativeEngine>")]
pub fn load(
    options: NativeLoadOptions,
    #[napi(ts_arg_type = "(progress: NativeProgress) => void")] on_progress: Callback<NativeProgress>,
    #[napi(ts_arg_type = "(events: NativeEvent[]) => void")] on_events: Callback<Vec<NativeEvent>>,
) -> AsyncTask<Away<NativeEngine>> {
    Away::task(move || {
        let loaded = loader::load(&options.translate(), &mut |done, total| {
            let progress = NativeProgress { done_bytes: done as f64, total_bytes: total as f64 };
            on_progress.call(progress, ThreadsafeFunctionCallMode::NonBlocking);
        })?;
        let sink = move |events: Vec<sglang_engine::request::Event>| {
            let events = events.into_iter().map(NativeEvent::from).collect();
            on_events.call(events, ThreadsafeFunctionCallMode::NonBlocking);
        };
        let (tokenizer, card) = (loaded.tokenizer.clone(), loaded.card.clone());
        let engine = Arc::new(Mutex::new(Some(loaded.start(Box::new(sink)))));
        Ok(NativeEngine { engine, tokenizer, card })
    })
}

/// A loaded model and its running engine.
#[napi]
pub struct NativeEngine {
    /// `None` once closed.
    engine: Arc<Mutex<Option<Engine>>>,
    tokenizer: Arc<Tokenizer>,
    card: ModelCard,
}

#[napi]
impl NativeEngine {
    /// What was loaded, as JSON.
    #[napi(getter)]
    pub fn model(&self) -> napi::Result<String> {
        guarded(|| Ok(self.card.to_json()))
    }

    /// Starts a generation; its events follow. Returns false after the engine was closed.
    #[napi]
    pub fn submit(&self, request: NativeRequest) -> napi::Result<bool> {
        self.with_engine(|engine| engine.submit(request.translate()))
    }

    /// Ends a generation at the next step.
    #[napi]
    pub fn abort(&self, id: f64) -> napi::Result<bool> {
        self.with_engine(|engine| engine.abort(id as u64))
    }

    /// Token ids of a text.
    #[napi]
    pub fn tokenize(&self, text: String, add_special_tokens: bool) -> napi::Result<Vec<u32>> {
        guarded(|| self.tokenizer.encode(&text, add_special_tokens))
    }

    /// Text of token ids; ids outside the vocabulary are an error.
    #[napi]
    pub fn detokenize(&self, ids: Vec<u32>, skip_special_tokens: bool) -> napi::Result<String> {
        guarded(|| {
            sglang_engine::request::check_tokens("tokens", ids.iter().copied(), self.tokenizer.vocab())?;
            Ok(self.tokenizer.decode(&ids, skip_special_tokens))
        })
    }

    /// State at the end of the last step; null after the engine was closed or failed.
    #[napi]
    pub fn stats(&self) -> napi::Result<Option<HashMap<&'static str, f64>>> {
        guarded(|| Ok(lock(&self.engine).as_ref().and_then(Engine::stats).as_ref().map(numbers)))
    }

    /// Drops all cached prefixes that no request holds; resolves with the tokens dropped.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn flush_cache(&self) -> AsyncTask<Away<f64>> {
        let engine = self.engine.clone();
        Away::task(move || Ok(ask(&engine, Engine::flush)? as f64))
    }

    /// The prefix tree, parents before children; with the text of each node only where asked for.
    #[napi(ts_return_type = "Promise<NativeTreeNode[]>")]
    pub fn tree(&self, with_text: bool) -> AsyncTask<Away<Vec<NativeTreeNode>>> {
        let (engine, tokenizer) = (self.engine.clone(), self.tokenizer.clone());
        Away::task(move || {
            let show = |tokens: &[u32]| with_text.then(|| tokenizer.decode(tokens, false));
            Ok(ask(&engine, Engine::tree)?.into_iter().map(|node| NativeTreeNode::new(node, show)).collect())
        })
    }

    /// Ends every open request, then the threads, and frees the memory.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close(&self) -> AsyncTask<Away<()>> {
        let engine = self.engine.clone();
        Away::task(move || {
            let open = lock(&engine).take();
            drop(open);
            Ok(())
        })
    }

    fn with_engine(&self, body: impl FnOnce(&Engine)) -> napi::Result<bool> {
        guarded(|| Ok(lock(&self.engine).as_ref().map(body).is_some()))
    }
}

/// Constraints over a tokenizer, without a model.
#[napi]
pub struct NativeGrammars(Mutex<Grammars>);

#[napi]
impl NativeGrammars {
    /// Reads a `tokenizer.json`, the folder of one, or a GGUF file.
    #[napi(constructor)]
    pub fn new(tokenizer_path: String) -> napi::Result<Self> {
        let tokenizer = guarded(|| Tokenizer::alone(tokenizer_path.as_ref()))?;
        Ok(NativeGrammars(Mutex::new(Grammars::new(Arc::new(tokenizer)))))
    }

    /// What a constraint makes of texts, as JSON.
    #[napi]
    pub fn examine(&self, kind: String, text: String, texts: Vec<String>) -> napi::Result<String> {
        let mut grammars = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        guarded(|| Ok(grammars.examine(&Constraint::named(&kind, text)?, &texts)?.json()))
    }
}

/// Waits for an answer of the loop thread.
fn ask<T: Send + 'static>(engine: &Mutex<Option<Engine>>, question: fn(&Engine, Reply<T>)) -> Result<T, Error> {
    let closed = || Error::Closed("the engine was closed".into());
    let (send, receive) = sync_channel(1);
    question(lock(engine).as_ref().ok_or_else(closed)?, Box::new(move |answer| drop(send.send(answer))));
    receive.recv().map_err(|_| closed())?
}

fn lock(engine: &Mutex<Option<Engine>>) -> MutexGuard<'_, Option<Engine>> {
    engine.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
