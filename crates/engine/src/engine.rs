//! The engine: a handle, and the loop thread that runs steps.
//!
//! Laws: every submitted request gets exactly one finishing event; only the loop thread touches the scheduler and the
//! runner; after a failure of the loop every open and every later request fails with the reason, and nothing hangs.

use crate::batch::{Batch, Picked};
use crate::error::{panic_message, Error, Result};
use crate::front::{Call, Command, Front, Reply};
use crate::request::{Event, Request, RequestId};
use crate::runner::Runner;
use crate::scheduler::{Limits, Scheduler, Totals};
use crate::text::Tokenizer;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Receives the events of a step, all at once.
pub type Sink = Box<dyn Fn(Vec<Event>) + Send>;

/// State of an engine at the end of its last step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that wait.
    pub waiting: usize,
    /// Sequences that run.
    pub running: usize,
    /// Pages of the KV cache: all, free, in the tree, and private to running sequences.
    pub total_pages: usize,
    /// Pages nobody uses.
    pub free_pages: usize,
    /// Pages of the prefix tree.
    pub cached_pages: usize,
    /// Pages private to running sequences.
    pub leased_pages: usize,
    /// Tokens evicted since the start.
    pub evicted_tokens: u64,
    /// Counters since the start.
    pub totals: Totals,
}

/// A running engine. Dropping it closes it.
pub struct Engine {
    calls: Sender<Call>,
    /// `None` after the loop ended.
    stats: Arc<Mutex<Option<Stats>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts the threads. `context` is the longest sequence in tokens; events go to `sink` on the loop thread.
    pub fn start(
        runner: Box<dyn Runner>,
        tokenizer: Arc<Tokenizer>,
        limits: Limits,
        context: usize,
        sink: Sink,
    ) -> Self {
        let (calls, called) = channel();
        let (commands, commanded) = channel();
        let stats = Arc::new(Mutex::new(None));
        let front = Front { tokenizer: tokenizer.clone(), context, commands };
        let steps = Steps { scheduler: Scheduler::new(limits, tokenizer), runner, sink, stats: stats.clone() };
        steps.publish();
        let threads = vec![
            spawn("sglang-front", move || front.run(&called)),
            spawn("sglang-loop", move || steps.run(&commanded)),
        ];
        Engine { calls, stats, threads }
    }

    /// Starts a generation. Nothing fails here: a request that cannot be served gets an event that says why.
    pub fn submit(&self, request: Request) {
        // A send fails only after the engine was closed, when nobody listens any more.
        let _ = self.calls.send(Call::Submit(Box::new(request)));
    }

    /// Ends a generation at the next step.
    pub fn abort(&self, id: RequestId) {
        let _ = self.calls.send(Call::Abort(id));
    }

    /// Drops all cached prefixes that no request holds.
    pub fn flush(&self, reply: Reply) {
        let _ = self.calls.send(Call::Flush(reply));
    }

    /// State at the end of the last step; `None` if the loop has ended, be it by a failure.
    pub fn stats(&self) -> Option<Stats> {
        *self.stats.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Ends every open request with an event, then the threads.
    pub fn close(&mut self) {
        let _ = self.calls.send(Call::Close);
        for thread in self.threads.drain(..) {
            // A panic on a thread was reported to all open requests by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name(name.into()).spawn(body).expect("the system can start a thread")
}

/// Runs steps until it is closed.
struct Steps {
    scheduler: Scheduler,
    runner: Box<dyn Runner>,
    sink: Sink,
    stats: Arc<Mutex<Option<Stats>>>,
}

impl Steps {
    fn run(mut self, commands: &Receiver<Command>) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.work(commands)));
        let error = match ended {
            Ok(Ok(())) => Error::Closed("the engine was closed".into()),
            Ok(Err(error)) => error,
            Err(panic) => Error::Closed(format!("the engine failed: {}", panic_message(&*panic))),
        };
        let failed = self.scheduler.fail_all(&error);
        *self.stats.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        self.emit(failed);
        self.refuse_all(commands, &error);
    }

    /// The loop: what was asked for, then a step, until closed.
    fn work(&mut self, commands: &Receiver<Command>) -> Result<()> {
        loop {
            if self.scheduler.is_idle() {
                let Ok(command) = commands.recv() else { return Ok(()) };
                if self.obey(command) {
                    return Ok(());
                }
            }
            while let Ok(command) = commands.try_recv() {
                if self.obey(command) {
                    return Ok(());
                }
            }
            self.step()?;
        }
    }

    /// One step: the path of a token.
    fn step(&mut self) -> Result<()> {
        self.scheduler.admit();
        let batch = self.scheduler.schedule();
        let picked = self.run_batch(&batch)?;
        let events = self.scheduler.commit(picked);
        self.publish();
        self.emit(events);
        Ok(())
    }

    fn run_batch(&mut self, batch: &Batch) -> Result<Vec<Picked>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.runner.run(batch)
    }

    /// Carries out one command; true means that the engine is to close.
    fn obey(&mut self, command: Command) -> bool {
        let event = match command {
            Command::Start(prepared) => self.scheduler.push(*prepared),
            Command::Refuse(event) => Some(event),
            Command::Abort(id) => self.scheduler.abort(id),
            Command::Flush(reply) => {
                let dropped = self.scheduler.flush();
                self.publish();
                reply(Ok(dropped));
                return false;
            }
            Command::Close => return true,
        };
        self.publish();
        self.emit(event.into_iter().collect());
        false
    }

    fn emit(&self, events: Vec<Event>) {
        if !events.is_empty() {
            (self.sink)(events);
        }
    }

    fn publish(&self) {
        let (waiting, running) = self.scheduler.counts();
        let cache = self.scheduler.cache().stats();
        let stats = Stats {
            waiting,
            running,
            total_pages: cache.total,
            free_pages: cache.free,
            cached_pages: cache.cached,
            leased_pages: cache.leased,
            evicted_tokens: cache.evicted_tokens as u64,
            totals: self.scheduler.totals(),
        };
        *self.stats.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(stats);
    }

    /// After the end: whatever still arrives is refused, until nobody can send any more.
    fn refuse_all(self, commands: &Receiver<Command>, error: &Error) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Start(prepared) => self.emit(vec![Event::failed(prepared.id, error)]),
                Command::Refuse(event) => self.emit(vec![event]),
                Command::Flush(reply) => reply(Err(Error::Closed(error.to_string()))),
                Command::Abort(_) => {}
                Command::Close => return,
            }
        }
    }
}
