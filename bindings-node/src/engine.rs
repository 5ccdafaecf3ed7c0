//! The engine as a JavaScript class. Events of a step reach JavaScript in one call.

use crate::guarded;
use crate::types::{NativeEvent, NativeLoadOptions, NativeModelCard, NativeProgress, NativeRequest, NativeStats};
use napi::bindgen_prelude::{AsyncTask, Env};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Status, Task};
use napi_derive::napi;
use sglang_engine::loader::{self, ModelCard};
use sglang_engine::text::Tokenizer;
use sglang_engine::Engine;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

/// A JavaScript function called from other threads; it does not keep the process alive.
type Callback<T> = ThreadsafeFunction<T, (), T, Status, false, true>;

/// Loads a model and starts its engine.
#[napi(ts_return_type = "Promise<NativeEngine>")]
pub fn load(
    options: NativeLoadOptions,
    #[napi(ts_arg_type = "(progress: NativeProgress) => void")] on_progress: Callback<NativeProgress>,
    #[napi(ts_arg_type = "(events: NativeEvent[]) => void")] on_events: Callback<Vec<NativeEvent>>,
) -> AsyncTask<Load> {
    AsyncTask::new(Load { arguments: Some((options, on_progress, on_events)) })
}

/// Loading, away from the JavaScript thread.
pub struct Load {
    arguments: Option<(NativeLoadOptions, Callback<NativeProgress>, Callback<Vec<NativeEvent>>)>,
}

impl Task for Load {
    type Output = NativeEngine;
    type JsValue = NativeEngine;

    fn compute(&mut self) -> napi::Result<NativeEngine> {
        let (options, on_progress, on_events) = self.arguments.take().expect("a task runs once");
        guarded(|| {
            let loaded = loader::load(&options.translate()?, &mut |done, total| {
                let progress = NativeProgress { done_bytes: done as f64, total_bytes: total as f64 };
                on_progress.call(progress, ThreadsafeFunctionCallMode::NonBlocking);
            })?;
            let sink = move |events: Vec<sglang_engine::request::Event>| {
                let events = events.into_iter().map(NativeEvent::from).collect();
                on_events.call(events, ThreadsafeFunctionCallMode::NonBlocking);
            };
            let (tokenizer, card) = (loaded.tokenizer.clone(), loaded.card.clone());
            let engine = Mutex::new(Some(loaded.start(Box::new(sink))));
            Ok(NativeEngine { engine: Arc::new(engine), tokenizer, card })
        })
    }

    fn resolve(&mut self, _: Env, engine: NativeEngine) -> napi::Result<NativeEngine> {
        Ok(engine)
    }
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
    /// What was loaded.
    #[napi(getter)]
    pub fn model(&self) -> NativeModelCard {
        (&self.card).into()
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

    /// State at the end of the last step; null after the engine was closed.
    #[napi]
    pub fn stats(&self) -> napi::Result<Option<NativeStats>> {
        guarded(|| Ok(self.lock().as_ref().map(|engine| engine.stats().into())))
    }

    /// Drops all cached prefixes that no request holds; resolves with the tokens dropped.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn flush_cache(&self) -> AsyncTask<Flush> {
        AsyncTask::new(Flush { engine: self.engine.clone() })
    }

    /// Ends every open request, then the threads, and frees the memory.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close(&self) -> AsyncTask<Close> {
        AsyncTask::new(Close { engine: self.engine.clone() })
    }

    fn with_engine(&self, body: impl FnOnce(&Engine)) -> napi::Result<bool> {
        guarded(|| Ok(self.lock().as_ref().map(body).is_some()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Engine>> {
        self.engine.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// [`NativeEngine::flush_cache`], away from the JavaScript thread.
pub struct Flush {
    engine: Arc<Mutex<Option<Engine>>>,
}

impl Task for Flush {
    type Output = f64;
    type JsValue = f64;

    fn compute(&mut self) -> napi::Result<f64> {
        guarded(|| {
            let (send, receive) = sync_channel(1);
            if let Some(engine) = self.engine.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).as_ref() {
                engine.flush(Box::new(move |dropped| drop(send.send(dropped))));
            } else {
                drop(send);
            }
            let closed = || sglang_engine::Error::Closed("the engine was closed".into());
            Ok(receive.recv().map_err(|_| closed())?? as f64)
        })
    }

    fn resolve(&mut self, _: Env, dropped: f64) -> napi::Result<f64> {
        Ok(dropped)
    }
}

/// [`NativeEngine::close`], away from the JavaScript thread.
pub struct Close {
    engine: Arc<Mutex<Option<Engine>>>,
}

impl Task for Close {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        guarded(|| {
            let engine = self.engine.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            drop(engine);
            Ok(())
        })
    }

    fn resolve(&mut self, _: Env, (): ()) -> napi::Result<()> {
        Ok(())
    }
}
