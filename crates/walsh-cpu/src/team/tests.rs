use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::*;

/// Counts how often each item runs.
struct Count {
    hits: Arc<Vec<AtomicU32>>,
    grain: usize,
    cost: u64,
    panic_at: Option<usize>,
}

impl Count {
    fn new(items: usize, grain: usize, cost: u64) -> Count {
        Count {
            hits: Arc::new((0..items).map(|_| AtomicU32::new(0)).collect()),
            grain,
            cost,
            panic_at: None,
        }
    }
}

impl Phase for Count {
    fn items(&self) -> usize {
        self.hits.len()
    }
    fn grain(&self) -> usize {
        self.grain
    }
    fn scratch_bytes(&self) -> usize {
        100
    }
    fn cost(&self) -> u64 {
        self.cost
    }
    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        assert!(scratch.bytes().len() >= 100);
        assert_eq!(scratch.bytes().as_ptr() as usize % 64, 0);
        scratch.bytes()[99] = 1;
        for item in items {
            assert!(Some(item) != self.panic_at, "item {item} is bad");
            self.hits[item].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Adds one to a plain cell, to be run by one thread at a time.
struct Bump(Arc<Cell>);

struct Cell(UnsafeCell<u64>);
// SAFETY: the tests put one phase that touches a cell, of one item, in a group.
unsafe impl Sync for Cell {}

impl Phase for Bump {
    fn items(&self) -> usize {
        1
    }
    fn cost(&self) -> u64 {
        1_000_000
    }
    unsafe fn run(&self, _: Range<usize>, _: &mut Scratch) {
        // SAFETY: no other item runs in this group.
        unsafe { *self.0.0.get() += 1 };
    }
}

fn run(team: &Team, groups: &[Group]) -> Result<(), TeamError> {
    // SAFETY: the phases of these tests own what they touch.
    unsafe { team.run(groups) }
}

#[test]
fn no_threads_is_an_error() {
    assert!(matches!(Team::new(0), Err(TeamError::NoThreads)));
}

#[test]
fn every_item_runs_once_per_run() {
    // Eight threads are more than most test machines have.
    for threads in [1, 2, 3, 8] {
        let team = Team::new(threads).unwrap();
        for cost in [0, 1_000_000] {
            let counts = [(0, 1), (1, 5), (7, 1), (1000, 3), (64, 0)];
            let phases: Vec<_> = counts
                .iter()
                .map(|&(items, grain)| Count::new(items, grain, cost))
                .collect();
            let hits: Vec<_> = phases.iter().map(|phase| Arc::clone(&phase.hits)).collect();
            let group = Group::new(
                phases
                    .into_iter()
                    .map(|phase| Box::new(phase) as Box<dyn Phase>)
                    .collect(),
            );
            let groups = [group, Group::default()];
            for round in 1..=50 {
                run(&team, &groups).unwrap();
                for hit in hits.iter().flat_map(|hits| hits.iter()) {
                    assert_eq!(hit.load(Ordering::Relaxed), round);
                }
            }
        }
    }
}

/// Two items that wait for each other when they are said to be long, and else note which thread runs them.
struct Meeting {
    cost: AtomicU64,
    arrived: AtomicU32,
    threads: Mutex<Vec<std::thread::ThreadId>>,
}

impl Phase for Arc<Meeting> {
    fn items(&self) -> usize {
        2
    }
    fn cost(&self) -> u64 {
        self.cost.load(Ordering::Relaxed)
    }
    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        lock(&self.threads).push(std::thread::current().id());
        self.arrived
            .fetch_add(items.len() as u32, Ordering::Relaxed);
        let start = Instant::now();
        while self.cost() > 0 && self.arrived.load(Ordering::Relaxed) < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "nobody came");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_phase_that_has_become_long_is_shared() {
    let team = Team::new(2).unwrap();
    let meeting = Arc::new(Meeting {
        cost: AtomicU64::new(0),
        arrived: AtomicU32::new(0),
        threads: Mutex::default(),
    });
    let groups = [Group::new(vec![Box::new(Arc::clone(&meeting))])];
    run(&team, &groups).unwrap();
    let alone = std::mem::take(&mut *lock(&meeting.threads));
    assert_eq!(alone, [std::thread::current().id(); 2]);
    meeting.arrived.store(0, Ordering::Relaxed);
    meeting.cost.store(1_000_000, Ordering::Relaxed);
    run(&team, &groups).unwrap();
    let shared = std::mem::take(&mut *lock(&meeting.threads));
    assert_ne!(shared[0], shared[1]);
}

#[test]
fn a_barrier_stands_between_groups() {
    let team = Team::new(3).unwrap();
    let cell = Arc::new(Cell(UnsafeCell::new(0)));
    // The second phase of each group makes it large enough to be shared out.
    let groups: Vec<Group> = (0..200)
        .map(|_| {
            let filler = Count::new(9, 1, 1_000_000);
            Group::new(vec![Box::new(Bump(Arc::clone(&cell))), Box::new(filler)])
        })
        .collect();
    for _ in 0..20 {
        run(&team, &groups).unwrap();
    }
    // SAFETY: no run is on.
    assert_eq!(unsafe { *cell.0.get() }, 4000);
}

#[test]
fn a_panic_is_an_error_and_the_team_lives_on() {
    for threads in [1, 3] {
        let team = Team::new(threads).unwrap();
        let mut bad = Count::new(100, 1, 1_000_000);
        bad.panic_at = Some(57);
        let error = run(&team, &[Group::new(vec![Box::new(bad)])]).unwrap_err();
        assert_eq!(error.to_string(), "a worker panicked: item 57 is bad");
        let good = Count::new(100, 1, 1_000_000);
        let hits = Arc::clone(&good.hits);
        run(&team, &[Group::new(vec![Box::new(good)])]).unwrap();
        assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1));
    }
}

#[test]
fn parked_workers_wake() {
    let team = Team::new(2).unwrap();
    let phase = Count::new(64, 1, 1_000_000);
    let hits = Arc::clone(&phase.hits);
    let groups = [Group::new(vec![Box::new(phase)])];
    for round in 1..=5 {
        std::thread::sleep(AWAKE * 4);
        run(&team, &groups).unwrap();
        assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == round));
    }
}

#[test]
fn runs_from_several_threads_take_turns() {
    let team = Team::new(2).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let phase = Count::new(300, 7, 1_000_000);
                let hits = Arc::clone(&phase.hits);
                let groups = [Group::new(vec![Box::new(phase)])];
                for _ in 0..100 {
                    run(&team, &groups).unwrap();
                }
                assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 100));
            });
        }
    });
}
