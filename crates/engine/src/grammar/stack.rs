//! Work that follows references by recursion, in compilation and in checks. A stack that is too small ends the process:
//! the longest chain that fits [`MAX_TEXT_BYTES`](super::MAX_TEXT_BYTES) must fit [`STACK_BYTES`].

use crate::error::panic_message;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Sender};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Of address space; memory is used only as far as a grammar needs it.
const STACK_BYTES: usize = 512 << 20;

type Work = Box<dyn FnOnce() + Send>;

/// To the thread that compiles, one work after another. It stays, since the memory of a new one is mapped page by page.
static COMPILER: LazyLock<Result<Mutex<Sender<Work>>, String>> = LazyLock::new(|| {
    let (sender, works) = channel::<Work>();
    let spawned = large_stack().spawn(move || works.into_iter().for_each(|work| work()));
    spawned.map(|_thread| Mutex::new(sender)).map_err(|e| format!("no thread to compile on: {e}"))
});

/// A thread of its own.
pub fn large_stack() -> std::thread::Builder {
    std::thread::Builder::new().name("sglang-grammar".into()).stack_size(STACK_BYTES)
}

/// What the work gives; an error where it panics.
pub fn on_large_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (send, receive) = channel();
    let answer = move || drop(send.send(catch_unwind(AssertUnwindSafe(work))));
    let compiler = COMPILER.as_ref().map_err(String::clone)?.lock().unwrap_or_else(PoisonError::into_inner).clone();
    compiler.send(Box::new(answer)).map_err(|e| e.to_string())?;
    receive.recv().map_err(|e| e.to_string())?.map_err(|panic| panic_message(&*panic))
}
