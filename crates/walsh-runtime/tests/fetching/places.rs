//! What else may lie in the cache folder, and who else may work in it.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

fn serving() -> Server {
    let bytes = model(50_000);
    Server::start(move |request| file(request, &bytes, "\"1\""))
}

#[test]
fn pipes_links_and_folders_in_the_way_are_refused() {
    let bench = Bench::new();
    let server = serving();
    let store = bench.store(&server);
    let name = server.at("/x.gguf");
    let path = pull(&store, &name).unwrap();
    store.remove(&name).unwrap();
    let outside = bench.root.path().join("outside");
    fs::write(&outside, b"of somebody else").unwrap();
    type Put = fn(&Path, &Path);
    let put: [(&str, Put); 3] = [
        ("a link", |place, outside| symlink(outside, place).unwrap()),
        ("a folder", |place, _| fs::create_dir(place).unwrap()),
        ("a pipe", |place, _| {
            assert!(
                Command::new("mkfifo")
                    .arg(place)
                    .status()
                    .unwrap()
                    .success()
            );
        }),
    ];
    for place in ["x.gguf", ".x.gguf.part", ".x.gguf.part.json", ".lock"] {
        let place = path.with_file_name(place);
        for (what, put) in put {
            let _ = fs::remove_file(&place);
            put(&place, &outside);
            let error = refused(&store, &name, what);
            assert!(error.contains(place.to_str().unwrap()), "{error}");
            // Neither of these hangs or fails on it.
            store.list().unwrap();
            let _ = store.remove(&name);
            let _ = store.verify(&name, &Watch::default(), &mut |_| {});
            let _ = fs::remove_dir(&place);
        }
        let _ = fs::remove_file(&place);
    }
    // Folders on the way.
    let folder = bench.cache().join("http");
    fs::remove_dir_all(&folder).unwrap();
    symlink(bench.root.path(), &folder).unwrap();
    refused(&store, &name, "a link");
    assert_eq!(fs::read(&outside).unwrap(), b"of somebody else");
}

#[test]
fn listings_and_records_that_are_damaged_or_forged_are_none() {
    let bench = Bench::new();
    let server = serving();
    let (store, name) = (bench.store(&server), server.at("/x.gguf"));
    let path = pull(&store, &name).unwrap();
    let bytes = fs::read(&path).unwrap();
    let from = server.at("/x.gguf");
    for listing in [
        "{".to_owned(),
        "[]".to_owned(),
        r#"{"files":[{"name":"../../x.gguf","bytes":1,"sha256":null}]}"#.to_owned(),
    ] {
        fs::write(path.with_file_name(".listing.json"), listing).unwrap();
        assert_eq!(pull(&store, &name).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    fs::remove_file(path.with_file_name(".listing.json")).unwrap();
    fs::write(&path, b"").unwrap();
    assert_eq!(store.list().unwrap()[0].state, State::Damaged);
    pull(&store, &name).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    for record in [
        "{".to_owned(),
        r#"{"from":"x","bytes":1,"sha256":null,"version":null}"#.to_owned(),
        format!(r#"{{"from":"{from}","bytes":0,"sha256":null,"version":"\"1\""}}"#),
        format!(r#"{{"from":"{from}","bytes":50000,"sha256":null,"version":"\"2\""}}"#),
        format!(r#"{{"from":"{from}","bytes":9,"sha256":null,"version":"\"1\""}}"#),
    ] {
        fs::remove_file(&path).unwrap();
        fs::write(
            path.with_file_name(".x.gguf.part"),
            b"GGUF but nothing of it",
        )
        .unwrap();
        fs::write(path.with_file_name(".x.gguf.part.json"), record).unwrap();
        pull(&store, &name).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn two_pulls_at_once_share_the_work() {
    let bench = Bench::new();
    let server = serving();
    let name = server.at("/x.gguf");
    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let pulls = [(); 3].map(|()| {
            let store = bench.store(&server);
            let name = &name;
            scope.spawn(move || pull(&store, name).unwrap())
        });
        pulls.map(|pull| pull.join().unwrap()).to_vec()
    });
    assert!(paths.iter().all(|path| *path == paths[0]));
    assert_eq!(server.paths().len(), 1);

    // While another process holds the lock, one waits until it is no longer wanted, and nothing is removed.
    let store = bench.store(&server);
    let lock = fs::File::create(paths[0].with_file_name(".lock")).unwrap();
    lock.lock().unwrap();
    let error = store.remove(&name).unwrap_err().to_string();
    assert!(error.contains("being fetched"), "{error}");
    fs::remove_file(&paths[0]).unwrap();
    let watch = Watch::default();
    let cancel = Arc::clone(&watch.cancel);
    let error = store.pull(&name, &watch, &mut |progress| {
        assert_eq!(progress, Progress::Waiting);
        cancel.store(true, Ordering::Relaxed);
    });
    assert!(matches!(error, Err(Error::Cancelled)), "{error:?}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    fs::write(bench.cache(), b"a file in the way").unwrap();
    let server = serving();
    refused(&bench.store(&server), &server.at("/x.gguf"), "cache");
    assert_eq!(server.paths(), [""; 0]);
    assert_eq!(fs::read(bench.cache()).unwrap(), b"a file in the way");
}
