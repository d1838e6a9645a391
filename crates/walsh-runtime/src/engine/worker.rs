//! The engine's thread: who is in a step, and what comes of it.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::EngineStatus;
use super::clients::Clients;
use super::pages::PageGroup;
use super::runner::Runner;
use super::sequence::{Rows, Sequence};
use crate::{Error, Finish, Result};

/// The state of an engine.
pub(super) struct Worker {
    runner: Runner,
    inbox: Receiver<Box<Sequence>>,
    /// Whether more requests may come.
    open: bool,
    /// Those that have not begun, the first in line first.
    waiting: Vec<Sequence>,
    /// Those that have a slot.
    running: Vec<Sequence>,
    free_slots: Vec<usize>,
    clients: Clients,
    /// The number of the next request.
    next: u64,
    /// Whether prompts that are read soonest come first in the next step.
    turn: bool,
    status: EngineStatus,
    shown: Arc<Mutex<EngineStatus>>,
}

impl Worker {
    pub(super) fn new(
        runner: Runner,
        inbox: Receiver<Box<Sequence>>,
        shown: Arc<Mutex<EngineStatus>>,
    ) -> Self {
        Self {
            free_slots: (0..runner.slots).rev().collect(),
            runner,
            inbox,
            open: true,
            clients: Clients::default(),
            waiting: Vec::new(),
            running: Vec::new(),
            next: 0,
            turn: false,
            status: EngineStatus::default(),
            shown,
        }
    }

    /// Serves until there is nobody left to ask.
    pub(super) fn run(mut self) {
        self.show();
        loop {
            self.receive();
            if !self.open {
                // Nobody holds a handle, and who holds a stream is told.
                return;
            }
            self.retire();
            match self.plan() {
                Ok(batch) if batch.is_empty() => {}
                Ok(batch) => self.step(batch),
                Err(error) => self.fail_all(&error),
            }
            self.show();
        }
    }

    /// Takes what has come in; waits for it where there is nothing else to do.
    fn receive(&mut self) {
        if self.waiting.is_empty() && self.running.is_empty() {
            match self.inbox.recv() {
                Ok(sequence) => self.enter(*sequence),
                Err(_) => self.open = false,
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(sequence) => self.enter(*sequence),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.open = false;
                    return;
                }
            }
        }
    }

    fn enter(&mut self, mut sequence: Sequence) {
        sequence.number = self.next;
        self.next += 1;
        self.clients.enter(sequence.client());
        self.wait(sequence);
    }

    /// Puts a sequence in line.
    fn wait(&mut self, sequence: Sequence) {
        let turn = sequence.turn();
        let place = self.waiting.partition_point(|other| other.turn() < turn);
        self.waiting.insert(place, sequence);
    }

    /// Ends those that nobody wants any more, or whose time is over.
    fn retire(&mut self) {
        let now = Instant::now();
        for sequence in self.waiting.extract_if(.., |s| s.due(now).is_some()) {
            self.clients.leave(sequence.client());
            sequence.end(Finish::Cancelled);
        }
        let over: Vec<Sequence> = self
            .running
            .extract_if(.., |s| s.due(now).is_some())
            .collect();
        for sequence in over {
            self.end_one(sequence, Ok(Finish::Cancelled));
        }
    }

    /// Takes a sequence's slot and pages back.
    fn leave(&mut self, sequence: &mut Sequence) {
        if let Some(slot) = sequence.slot.take() {
            self.runner.clear(slot);
            self.free_slots.push(slot);
        }
    }

    /// Ends a sequence that runs. What it has read is kept, unless an error ended it.
    fn end_one(&mut self, mut sequence: Sequence, ended: Result<Finish>) {
        let kept = match &ended {
            Ok(_) => self.runner.keep(&mut sequence),
            Err(_) => Ok(()),
        };
        self.leave(&mut sequence);
        self.clients.leave(sequence.client());
        match kept.and(ended) {
            Ok(finish) => sequence.end(finish),
            Err(error) => sequence.fail(error),
        }
    }

    /// Who is in the next step, with pages for it: places among the running.
    fn plan(&mut self) -> Result<Vec<usize>> {
        while self.admit()? {}
        self.running.sort_by_key(Sequence::turn);
        if let Some(alone) = self.running.iter().find(|sequence| sequence.is_alone()) {
            return self.plan_alone(alone.number);
        }
        let (reading, read) = self.reading();
        let (mut batch, mut place) = (Vec::new(), 0);
        // What prompts leave of a step's rows.
        let mut room = self.runner.chunk.saturating_sub(read);
        while place < self.running.len() {
            let sequence = &mut self.running[place];
            room -= sequence.draft(room);
            let rows = sequence.next_rows();
            if matches!(rows, Rows::Prefill(_)) && !reading.contains(&sequence.number) {
                place += 1;
                continue;
            }
            let slot = sequence.slot.unwrap_or_default();
            if self.runner.reserve(slot, &rows)? {
                batch.push(place);
                place += 1;
            } else if sequence.drop_drafts() {
                // Nobody gives way to what is only likely.
                if self.runner.reserve(slot, &sequence.next_rows())? {
                    batch.push(place);
                    place += 1;
                } else {
                    self.put_off_last(place)?;
                }
            } else {
                self.put_off_last(place)?;
            }
        }
        Ok(batch)
    }

    /// One that is read by itself is the next step, whoever gives way to it.
    fn plan_alone(&mut self, number: u64) -> Result<Vec<usize>> {
        loop {
            let found = self.running.iter().position(|s| s.number == number);
            let Some(place) = found else {
                return Ok(Vec::new());
            };
            let sequence = &self.running[place];
            let slot = sequence.slot.unwrap_or_default();
            if self.runner.reserve(slot, &sequence.next_rows())? {
                return Ok(vec![place]);
            }
            let others = (0..self.running.len()).filter(|other| *other != place);
            match others.max_by_key(|other| self.running[*other].turn()) {
                Some(last) => self.put_off(last)?,
                // There are pages for one text at least.
                None => return Ok(Vec::new()),
            }
        }
    }

    /// The numbers of those that read a chunk of their prompt in the next step. In turns, who came first is the first, and
    /// who is done soonest: a short prompt waits for no long one, and a long one is read at half of its speed at least.
    /// How many rows that are, too.
    fn reading(&mut self) -> (Vec<u64>, usize) {
        let rows = |sequence: &&Sequence| matches!(sequence.next_rows(), Rows::Prefill(_));
        let mut readers: Vec<&Sequence> = self.running.iter().filter(rows).collect();
        self.turn = !self.turn;
        if self.turn {
            readers.sort_by_key(|sequence| sequence.shortest());
        }
        let mut read = 0;
        let fits = |sequence: &&Sequence| {
            let rows = sequence.next_rows().positions().len();
            let fits = read == 0 || read + rows <= self.runner.chunk;
            read += if fits { rows } else { 0 };
            fits
        };
        readers.retain(fits);
        let numbers = readers.iter().map(|sequence| sequence.number).collect();
        (numbers, read)
    }

    /// Lets one that waits begin, if there is room for it: of those of the highest priority, that whose client has had the
    /// fewest tokens.
    fn admit(&mut self) -> Result<bool> {
        if self.free_slots.is_empty() {
            return Ok(false);
        }
        // They lie in turn already: of equals the first.
        let turn = |place: &usize| {
            let sequence = &self.waiting[*place];
            (sequence.turn().0, self.clients.tokens(sequence.client()))
        };
        let Some(place) = (0..self.waiting.len()).min_by_key(turn) else {
            return Ok(false);
        };
        if !self.runner.has_room(&self.waiting[place], &self.running) {
            return Ok(false);
        }
        let Some(slot) = self.free_slots.pop() else {
            return Ok(false);
        };
        let mut sequence = self.waiting.remove(place);
        let again = sequence.begin(slot);
        let went_on = self.runner.go_on(&mut sequence);
        if !again {
            self.status.reused += sequence.note_reused() as u64;
        }
        self.running.push(sequence);
        went_on.map(|()| true)
    }

    /// The last in line, of those from a place on, of whom there is one, gives its pages to the others. It goes on from what
    /// is kept of it, if nobody has needed that.
    fn put_off_last(&mut self, from: usize) -> Result<()> {
        let last = (from..self.running.len()).max_by_key(|place| self.running[*place].turn());
        last.map_or(Ok(()), |place| self.put_off(place))
    }

    fn put_off(&mut self, place: usize) -> Result<()> {
        let mut sequence = self.running.remove(place);
        let kept = self.runner.keep(&mut sequence);
        self.wait_again(sequence);
        kept
    }

    /// Puts one that runs back in line.
    fn wait_again(&mut self, mut sequence: Sequence) {
        self.leave(&mut sequence);
        sequence.put_off();
        self.status.put_off += 1;
        self.wait(sequence);
    }

    /// Runs a step, and hands out what comes of it.
    fn step(&mut self, batch: Vec<usize>) {
        self.status.steps += 1;
        let sequences: Vec<&Sequence> = batch.iter().map(|place| &self.running[*place]).collect();
        match self.runner.read(&sequences) {
            Ok(rows) => self.advance(&batch, &rows),
            Err(Error::Core(walsh::Error::Value { .. }))
                if batch.len() > 1 && self.runner.keeps_states() =>
            {
                // Layers' states have gone on: each goes back to what was kept before, and is read by itself up to here.
                for place in batch.into_iter().rev() {
                    let mut sequence = self.running.remove(place);
                    sequence.read_alone();
                    self.wait_again(sequence);
                }
            }
            Err(Error::Core(walsh::Error::Value { .. })) if batch.len() > 1 => {
                // One of them has numbers that cannot be stored: each is read by itself, and the others go on.
                for place in batch.into_iter().rev() {
                    self.step(vec![place]);
                }
            }
            Err(Error::Core(walsh::Error::Value { .. }))
                if batch.iter().any(|place| self.running[*place].drop_drafts()) =>
            {
                // It may be what was looked up.
                self.step(batch);
            }
            Err(error @ Error::Core(walsh::Error::Value { .. })) => {
                for place in batch {
                    let sequence = self.running.remove(place);
                    self.end_one(sequence, Err(not_a_number(&error)));
                }
            }
            Err(error) => self.fail_all(&error),
        }
    }

    /// Chooses the next tokens of those whose text was read to its end; `rows` has each one's last.
    fn advance(&mut self, batch: &[usize], rows: &[i32]) {
        let mut chosen = Vec::new();
        let mut over: Vec<(usize, Result<Finish>)> = Vec::new();
        for (&place, &row) in batch.iter().zip(rows) {
            let sequence = &mut self.running[place];
            let rows = sequence.next_rows();
            let is_whole = sequence.advance();
            self.clients
                .charge(sequence.client(), rows.positions().len());
            if let Rows::Prefill(positions) = rows {
                self.status.read += positions.len() as u64;
                let told = self.runner.tell(sequence, &positions, row);
                if let Err(error) = told.and_then(|()| self.runner.keep_call(sequence, &positions))
                {
                    return self.fail_all(&error);
                }
            }
            if !is_whole {
                continue;
            }
            if let Err(error) = sequence.say_prompt() {
                over.push((place, Err(error)));
                continue;
            }
            match sequence.wants_nothing() {
                true => over.push((place, Ok(Finish::MaxTokens))),
                false => {
                    let first = row - sequence.drafts() as i32;
                    chosen.extend((first..=row).map(|row| (place, row)));
                }
            }
        }
        match self.choose(&chosen, &mut over) {
            Ok(()) => self.end(over),
            Err(error) => self.fail_all(&error),
        }
    }

    /// Chooses a token for each place behind its row, and notes who is at an end with it. Of a place with several rows, those
    /// behind the first are of tokens that were looked up, and count as long as these are what is chosen.
    fn choose(
        &mut self,
        chosen: &[(usize, i32)],
        over: &mut Vec<(usize, Result<Finish>)>,
    ) -> Result<()> {
        if chosen.is_empty() {
            return Ok(());
        }
        let rows: Vec<i32> = chosen.iter().map(|(_, row)| *row).collect();
        let Self {
            runner,
            running,
            status,
            ..
        } = self;
        let likeliest = |(place, _): &(usize, i32)| running[*place].takes_likeliest();
        let mut found = match chosen.iter().all(likeliest) {
            false => None,
            true => match runner.likeliest(&rows) {
                Ok(tokens) => Some(tokens),
                // Some row has a number that is none: the logits tell which.
                Err(Error::Core(walsh::Error::Value { .. })) => None,
                Err(error) => return Err(error),
            },
        };
        // The place of the latest row, how many of its rows counted, and whether its next does.
        let mut latest = (usize::MAX, 0, false);
        let mut take = |index: usize, logits: Option<&mut [f32]>, token: i32| {
            let (place, _) = chosen[index];
            let sequence = &mut running[place];
            if latest.0 != place {
                latest = (place, 0, true);
            }
            if !latest.2 {
                return;
            }
            let token = match logits {
                None => Ok((token, None)),
                Some(logits) => sequence.choose(logits),
            };
            let ended = token.map(|(token, logprobs)| sequence.push(token, logprobs));
            latest.1 += 1;
            latest.2 = match ended {
                Ok(None) => sequence.confirm(),
                Ok(Some(finish)) => {
                    over.push((place, Ok(finish)));
                    false
                }
                Err(error) => {
                    over.push((place, Err(error)));
                    false
                }
            };
            status.generated += 1;
            if !latest.2 {
                let (looked_up, found) = sequence.note_found(latest.1 - 1);
                status.looked_up += looked_up;
                status.found += found;
            }
        };
        match found.take() {
            Some(tokens) => {
                for (index, token) in tokens.into_iter().enumerate() {
                    take(index, None, token);
                }
                Ok(())
            }
            None => runner.logits(&rows, &mut |index, logits| take(index, Some(logits), 0)),
        }
    }

    /// Ends sequences, each with how it ends.
    fn end(&mut self, mut over: Vec<(usize, Result<Finish>)>) {
        over.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        for (place, ended) in over {
            let sequence = self.running.remove(place);
            self.end_one(sequence, ended);
        }
    }

    /// Ends everybody: the device did not run.
    fn fail_all(&mut self, error: &Error) {
        let running = std::mem::take(&mut self.running);
        for mut sequence in running.into_iter().chain(std::mem::take(&mut self.waiting)) {
            self.leave(&mut sequence);
            self.clients.leave(sequence.client());
            let what = error.to_string();
            sequence.fail(Error::Engine { what });
        }
    }

    /// Tells those who look at it.
    fn show(&mut self) {
        let groups = &self.runner.caches.groups;
        let sum =
            |of: &dyn Fn(&PageGroup) -> usize| groups.iter().map(|group| of(&group.pages)).sum();
        self.status.waiting = self.waiting.len();
        self.status.running = self.running.len();
        self.status.pages_used = sum(&PageGroup::held);
        self.status.pages_kept = sum(&|pages| pages.pages() - pages.free() - pages.held());
        self.status.pages = sum(&PageGroup::pages);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = self.status;
    }
}

/// What is told of numbers that cannot be stored.
fn not_a_number(error: &Error) -> Error {
    Error::Logits {
        what: error.to_string(),
    }
}
