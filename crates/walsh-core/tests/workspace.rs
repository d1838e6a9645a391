//! Workspace of lists: what is derived, and what serves again.

use walsh_core::{Access, Buffer, DeviceId, Error, Memory, Span, Workspace};

struct Nothing;

impl Memory for Nothing {}

fn buffer(bytes: u64) -> Buffer {
    Buffer::new(
        DeviceId::unique(),
        bytes,
        Access::ReadWrite,
        Box::new(Nothing),
    )
}

fn take(workspace: &mut Workspace, bytes: u64) -> Buffer {
    workspace.take(bytes, |bytes| Ok(buffer(bytes))).unwrap()
}

#[derive(Debug, Clone, PartialEq)]
struct Table(f32);

#[derive(Debug, Clone, PartialEq)]
struct Sums(f32);

#[test]
fn what_is_derived_from_a_tensor_lasts_until_the_tensor_is_written() {
    let mut workspace = Workspace::default();
    let positions = buffer(12).span();
    let table = take(&mut workspace, 64);
    workspace.keep(Table(1.0), vec![positions.clone()], table.clone());
    let known =
        |workspace: &Workspace| workspace.known(&Table(1.0), std::slice::from_ref(&positions));
    assert_eq!(known(&workspace).map(|b| b.id()), Some(table.id()));
    // Another purpose, one of another type, and another source.
    assert!(
        workspace
            .known(&Table(2.0), std::slice::from_ref(&positions))
            .is_none()
    );
    assert!(
        workspace
            .known(&Sums(1.0), std::slice::from_ref(&positions))
            .is_none()
    );
    let part = |offset| Span {
        offset,
        bytes: 4,
        ..positions.clone()
    };
    assert!(workspace.known(&Table(1.0), &[part(0)]).is_none());

    let before = workspace.clone();
    workspace.invalidate(&buffer(12).span());
    assert!(known(&workspace).is_some());
    workspace.invalidate(&part(8));
    assert!(known(&workspace).is_none());
    // Its memory serves again; a clone that was made before knows nothing of it.
    assert_eq!(take(&mut workspace, 64).id(), table.id());
    assert!(known(&before).is_some());
}

#[test]
fn what_is_released_serves_for_as_many_bytes_or_half() {
    let mut workspace = Workspace::default();
    let first = take(&mut workspace, 100);
    workspace.release(first.clone());
    assert_ne!(take(&mut workspace, 101).id(), first.id());
    assert_ne!(take(&mut workspace, 49).id(), first.id());
    assert_eq!(take(&mut workspace, 50).id(), first.id());
    // It is in use now.
    assert_ne!(take(&mut workspace, 50).id(), first.id());
    let full = |bytes| {
        Err(Error::OutOfMemory {
            device: "fake".into(),
            bytes,
        })
    };
    assert!(workspace.take(1000, full).is_err());
}
