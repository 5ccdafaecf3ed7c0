//! The engine: a handle, and the loop thread that runs steps.
//!
//! Laws: every submitted request gets exactly one finishing event; only the loop thread touches the scheduler and the
//! runner; after a failure of the loop every open and every later request fails with the reason, and nothing hangs. Which
//! requests are open is known apart from the scheduler, which may have failed halfway through anything.

use crate::batch::{Answers, Batch};
use crate::error::{panic_message, Error, Result};
pub use crate::front::Abilities;
use crate::front::{Call, Command, Front};
use crate::request::{Event, Request, RequestId};
use crate::runner::Runner;
use crate::scheduler::{Limits, Scheduler, Totals, TreeNode};
use crate::text::Tokenizer;
use std::collections::BTreeSet;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Receives the events of a step, all at once.
pub type Sink = Box<dyn Fn(Vec<Event>) + Send>;
/// Receives an answer on the loop thread.
pub type Reply<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// Time since the start in each stage of the steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Sorting the queue, matching prefixes, leasing pages.
    pub admit: Duration,
    /// Planning rows and making the batch.
    pub schedule: Duration,
    /// The runner: the model and sampling.
    pub run: Duration,
    /// Text, stops and constraints of new tokens; insertion into the tree.
    pub commit: Duration,
    /// Handing the events over.
    pub emit: Duration,
}

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
    /// Those of `cached_pages` that no sequence holds.
    pub evictable_pages: usize,
    /// Tokens evicted since the start.
    pub evicted_tokens: u64,
    /// Where the time went since the start.
    pub times: StageTimes,
    /// Counters since the start.
    pub totals: Totals,
}

/// Where the loop shows its state; `None` after it ended.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<Option<Stats>>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Option<Stats>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running engine. Dropping it closes it.
pub struct Engine {
    calls: Sender<Call>,
    board: Board,
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
        Self::start_able(runner, tokenizer, limits, context, Abilities::default(), sink)
    }

    /// The same for a model that can do more, or less, than continue text.
    pub fn start_able(
        runner: Box<dyn Runner>,
        tokenizer: Arc<Tokenizer>,
        limits: Limits,
        context: usize,
        abilities: Abilities,
        sink: Sink,
    ) -> Self {
        let (calls, called) = channel();
        let (commands, commanded) = channel();
        let board = Board::default();
        let front = Front { tokenizer: tokenizer.clone(), context, abilities, commands };
        let (scheduler, times) = (Scheduler::new(limits, tokenizer), StageTimes::default());
        let steps = Steps { scheduler, runner, sink, open: BTreeSet::new(), times, board: board.clone() };
        steps.publish();
        let threads = vec![front.start(called), spawn("sglang-loop", move || steps.run(&commanded))];
        Engine { calls, board, threads }
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

    /// Drops all cached prefixes that no request holds; answers with the tokens dropped.
    pub fn flush(&self, reply: Reply<usize>) {
        self.between_steps(reply, Scheduler::flush);
    }

    /// Answers with the prefix tree as it is between two steps.
    pub fn tree(&self, reply: Reply<Vec<TreeNode>>) {
        self.between_steps(reply, |scheduler| scheduler.tree());
    }

    fn between_steps<T: 'static>(&self, reply: Reply<T>, body: impl FnOnce(&mut Scheduler) -> T + Send + 'static) {
        let _ = self.calls.send(Call::Between(Box::new(move |scheduler| {
            let answer = scheduler.map(body);
            Box::new(move || reply(answer))
        })));
    }

    /// State at the end of the last step; `None` if the loop has ended, be it by a failure.
    pub fn stats(&self) -> Option<Stats> {
        *self.board.lock()
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

/// Time since `clock`, which starts anew.
fn lap(clock: &mut Instant) -> Duration {
    let now = Instant::now();
    now - std::mem::replace(clock, now)
}

/// Runs steps until it is closed.
struct Steps {
    scheduler: Scheduler,
    runner: Box<dyn Runner>,
    sink: Sink,
    /// Requests that have arrived and whose finishing event is not handed over yet.
    open: BTreeSet<RequestId>,
    times: StageTimes,
    board: Board,
}

impl Steps {
    fn run(mut self, commands: &Receiver<Command>) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.work(commands)));
        let error = match ended {
            Ok(Ok(())) => Error::Closed("the engine was closed".into()),
            Ok(Err(error)) => error,
            Err(panic) => Error::Closed(format!("the engine failed: {}", panic_message(&*panic))),
        };
        *self.board.lock() = None;
        self.emit(self.open.iter().map(|&id| Event::failed(id, &error)).collect());
        self.refuse_all(commands, &error);
        // Last, since what panicked may panic again.
        self.scheduler.release_all();
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
        let mut clock = Instant::now();
        self.scheduler.admit();
        self.times.admit += lap(&mut clock);
        let batch = self.scheduler.schedule();
        self.times.schedule += lap(&mut clock);
        let answers = self.run_batch(&batch)?;
        self.times.run += lap(&mut clock);
        let events = self.scheduler.commit(answers);
        self.times.commit += lap(&mut clock);
        self.publish();
        self.emit(events);
        self.times.emit += lap(&mut clock);
        Ok(())
    }

    fn run_batch(&mut self, batch: &Batch) -> Result<Answers> {
        if batch.is_empty() {
            return Ok(Answers::default());
        }
        self.runner.run(batch)
    }

    /// Carries out one command; true means that the engine is to close.
    fn obey(&mut self, command: Command) -> bool {
        let event = match command {
            Command::Start(prepared) => {
                self.open.insert(prepared.id);
                self.scheduler.push(*prepared)
            }
            Command::Refuse(id, error) => {
                self.open.insert(id);
                Some(Event::failed(id, &error))
            }
            Command::Abort(id) => self.scheduler.abort(id),
            Command::Between(errand) => {
                let answer = errand(Ok(&mut self.scheduler));
                self.publish();
                answer();
                return false;
            }
            Command::Close => return true,
        };
        self.publish();
        self.emit(event.into_iter().collect());
        false
    }

    fn emit(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let ended: Vec<_> = events.iter().filter(|event| event.finish.is_some()).map(|event| event.id).collect();
        (self.sink)(events);
        for id in ended {
            self.open.remove(&id);
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
            evictable_pages: cache.evictable,
            evicted_tokens: cache.evicted_tokens as u64,
            times: self.times,
            totals: self.scheduler.totals(),
        };
        *self.board.lock() = Some(stats);
    }

    /// After the end: whatever still arrives is refused, until nobody can send any more.
    fn refuse_all(&mut self, commands: &Receiver<Command>, error: &Error) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Start(prepared) => self.emit(vec![Event::failed(prepared.id, error)]),
                Command::Refuse(id, error) => self.emit(vec![Event::failed(id, &error)]),
                Command::Between(errand) => errand(Err(Error::Closed(error.to_string())))(),
                Command::Abort(_) => {}
                Command::Close => return,
            }
        }
    }
}
