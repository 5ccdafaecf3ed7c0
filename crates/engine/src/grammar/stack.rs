//! Work that follows references by recursion, in compilation and in checks. A stack that is too small ends the process:
//! the longest chain that fits [`MAX_TEXT_BYTES`](super::MAX_TEXT_BYTES) must fit [`STACK_BYTES`].

use crate::error::panic_message;
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Sender};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Of address space; memory is used only as far as a grammar needs it.
const STACK_BYTES: usize = 512 << 20;

type Work = Box<dyn FnOnce() + Send>;

/// To the thread that compiles, one work after another. It stays, since the memory of a new one is mapped page by page.
static COMPILER: LazyLock<Result<Mutex<Sender<Work>>, String>> = LazyLock::new(|| {
    let (sender, works) = channel::<Work>();
    let spawned = spawn_large("sglang-grammar", move || works.into_iter().for_each(|work| work()));
    spawned.map(|_thread| Mutex::new(sender)).map_err(|e| format!("no thread to compile on: {e}"))
});

thread_local! {
    static IS_LARGE: Cell<bool> = const { Cell::new(false) };
}

/// A thread on which grammars are compiled in place.
pub fn spawn_large<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    let work = move || {
        IS_LARGE.set(true);
        body()
    };
    Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(work)
}

/// What the work gives; an error where it panics.
pub fn on_large_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let work = move || catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(&*panic));
    if IS_LARGE.get() {
        return work();
    }
    let (send, receive) = channel();
    let compiler = COMPILER.as_ref().map_err(String::clone)?.lock().unwrap_or_else(PoisonError::into_inner).clone();
    compiler.send(Box::new(move || drop(send.send(work())))).map_err(|e| e.to_string())?;
    receive.recv().map_err(|e| e.to_string())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::current;

    #[test]
    fn a_large_thread_works_in_place_and_a_panic_is_an_error_anywhere() {
        let check = || {
            let name = on_large_stack(|| current().name().map(str::to_owned)).unwrap();
            let panicked = on_large_stack(|| panic!("too deep"));
            (name.unwrap(), panicked.unwrap_err())
        };
        let (elsewhere, error) = check();
        assert_eq!(elsewhere, "sglang-grammar");
        assert!(error.contains("too deep"), "{error}");
        let (in_place, same) = spawn_large("large", check).unwrap().join().unwrap();
        assert_eq!((in_place.as_str(), same), ("large", error));
    }
}
