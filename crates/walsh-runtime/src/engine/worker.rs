//! The engine's thread: who is in a step, and what comes of it.

mod memory;
mod shown;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use self::memory::Seeking;
pub(super) use self::shown::Shown;
use super::clients::Clients;
use super::job::{Job, SlotWork};
use super::runner::Runner;
use super::sequence::{Rows, Sequence};
use super::slots::Held;
use super::status::EngineStatus;
use crate::{Error, Finish, Result};

/// The state of an engine.
pub(super) struct Worker {
    runner: Runner,
    inbox: Receiver<Job>,
    /// Whether more requests may come.
    open: bool,
    /// Those that have not begun, the first in line first.
    waiting: Vec<Sequence>,
    /// Those that have a slot.
    running: Vec<Sequence>,
    /// Those that were of use the longest ago first.
    free_slots: VecDeque<usize>,
    /// What is to be done with slots when nobody has them.
    slot_works: Vec<Work>,
    clients: Clients,
    /// The number of the next request.
    next: u64,
    /// Whether prompts that are read soonest come first in the next step.
    turn: bool,
    /// Whether the next step waits for memory, or has waited.
    seeking: Seeking,
    status: EngineStatus,
    shown: Arc<Mutex<Shown>>,
}

/// What is to be done with a slot.
struct Work {
    slot: usize,
    /// Requests of lower numbers came before it.
    number: u64,
    work: SlotWork,
}

impl Worker {
    pub(super) fn new(runner: Runner, inbox: Receiver<Job>, shown: Arc<Mutex<Shown>>) -> Self {
        Self {
            free_slots: (0..runner.slots).collect(),
            slot_works: Vec::new(),
            runner,
            inbox,
            open: true,
            clients: Clients::default(),
            waiting: Vec::new(),
            running: Vec::new(),
            next: 0,
            turn: false,
            seeking: Seeking::default(),
            status: EngineStatus::default(),
            shown,
        }
    }

    /// Serves until there is nobody left to ask.
    pub(super) fn run(mut self) {
        self.show();
        loop {
            self.give();
            if self.open {
                self.receive();
                self.give();
            }
            if !self.open {
                // Nobody holds a handle, and who holds a stream is told.
                return;
            }
            self.retire();
            self.work_on_slots();
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
        let is_idle = self.waiting.is_empty() && self.running.is_empty();
        if (is_idle && self.slot_works.is_empty()) || self.seeking == Seeking::Waits {
            match self.inbox.recv() {
                Ok(job) => self.take(job),
                Err(_) => self.open = false,
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(job) => self.take(job),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.open = false;
                    return;
                }
            }
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Look => self.seeking.hear(),
            Job::Serve(sequence) => self.enter(*sequence),
            Job::Slot(slot, work) => self.slot_works.push(Work {
                slot,
                number: self.next,
                work,
            }),
        }
    }

    /// Does what is to be done with slots that nobody has, or has asked for before, in the order that it came in.
    fn work_on_slots(&mut self) {
        let Self {
            runner,
            free_slots,
            waiting,
            ..
        } = self;
        let is_due = |work: &mut Work| {
            let before = |sequence: &Sequence| {
                sequence.number < work.number && sequence.wanted_slot() == Some(work.slot)
            };
            free_slots.contains(&work.slot) && !waiting.iter().any(before)
        };
        let works = self.slot_works.extract_if(.., is_due);
        let tell: Vec<_> = works
            .map(|Work { slot, work, .. }| work(runner, slot))
            .collect();
        if tell.is_empty() {
            return;
        }
        // Who is told finds it so.
        self.show();
        for tell in tell {
            tell();
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
        let gone: Vec<Sequence> = self
            .waiting
            .extract_if(.., |s| s.due(now).is_some())
            .collect();
        for mut sequence in gone {
            self.leave(&mut sequence);
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
            self.free_slots.push_back(slot);
        }
    }

    /// Ends a sequence that runs. What it has read is kept, unless an error ended it.
    fn end_one(&mut self, mut sequence: Sequence, ended: Result<Finish>) {
        let kept = match &ended {
            Ok(_) => self.runner.keep(&mut sequence),
            Err(_) => Ok(()),
        };
        if let (Some(slot), Ok(()), Ok(_)) = (sequence.slot, &kept, &ended) {
            self.runner.held[slot] = sequence.held();
        }
        self.leave(&mut sequence);
        self.clients.leave(sequence.client());
        match kept.and(ended) {
            Ok(finish) => sequence.end(finish),
            Err(error) => sequence.fail(error),
        }
    }

    /// Who is in the next step, with pages for it: places among the running.
    fn plan(&mut self) -> Result<Vec<usize>> {
        if self.waits_for_memory()? {
            return Ok(Vec::new());
        }
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

    /// Who may begin next of those that wait: of those of the highest priority, that whose client has had the fewest tokens.
    fn next_waiting(&self) -> Option<usize> {
        let can_begin = |place: &usize| self.can_have_slot(&self.waiting[*place]);
        // They lie in turn already: of equals the first.
        let turn = |place: &usize| {
            let sequence = &self.waiting[*place];
            (sequence.turn().0, self.clients.tokens(sequence.client()))
        };
        (0..self.waiting.len()).filter(can_begin).min_by_key(turn)
    }

    /// Lets one that waits begin, if there is room for it.
    fn admit(&mut self) -> Result<bool> {
        let Some(place) = self.next_waiting() else {
            return Ok(false);
        };
        if !self.runner.has_room(&self.waiting[place], &self.running) {
            return Ok(false);
        }
        let Some(slot) = self.slot_for(&self.waiting[place]) else {
            return Ok(false);
        };
        self.free_slots.retain(|free| *free != slot);
        self.runner.held[slot] = None;
        let mut sequence = self.waiting.remove(place);
        let again = sequence.begin(slot);
        let went_on = self.runner.go_on(&mut sequence);
        if !again {
            self.status.reused += sequence.note_reused() as u64;
        }
        self.running.push(sequence);
        went_on.map(|()| true)
    }

    /// The free slots that a request may have: nothing is to be done first with one.
    fn open_slots(&self, number: u64) -> impl Iterator<Item = usize> {
        let is_open = move |slot: &usize| {
            let mut works = self.slot_works.iter();
            !works.any(|work| work.slot == *slot && work.number <= number)
        };
        self.free_slots.iter().copied().filter(is_open)
    }

    /// Whether there is a [slot](Self::slot_for) for a text.
    fn can_have_slot(&self, sequence: &Sequence) -> bool {
        let mut slots = self.open_slots(sequence.number);
        match (sequence.slot, sequence.wanted_slot()) {
            (Some(_), _) => true,
            (None, Some(wanted)) => slots.any(|slot| slot == wanted),
            (None, None) => slots.next().is_some(),
        }
    }

    /// The slot that a text is to have: one that it has or asks for, that of the text that it goes on, one without a text, or
    /// the one that was of use the longest ago.
    fn slot_for(&self, sequence: &Sequence) -> Option<usize> {
        if sequence.slot.is_some() {
            return sequence.slot;
        }
        let slots = || self.open_slots(sequence.number);
        if let Some(wanted) = sequence.wanted_slot() {
            return slots().find(|slot| *slot == wanted);
        }
        let held = |slot: &usize| self.runner.held[*slot].as_ref();
        let goes_on = |slot: &usize| held(slot).is_some_and(|text| sequence.goes_on_from(text));
        let length = |slot: &usize| held(slot).map(|Held { prompt, .. }| *prompt);
        slots()
            .filter(goes_on)
            .max_by_key(length)
            .or_else(|| slots().filter(|slot| held(slot).is_none()).min())
            .or_else(|| slots().next())
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
        // The slot stays its own.
        if let Some(slot) = sequence.slot {
            self.runner.clear(slot);
        }
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
}

/// What is told of numbers that cannot be stored.
fn not_a_number(error: &Error) -> Error {
    Error::Logits {
        what: error.to_string(),
    }
}
