// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring's descriptor passed to another process (SCM_RIGHTS), with what SETUP said of the ring.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use kmod_sq::call;
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use sq_uapi::SqSetup;

use crate::Why;

/// A connected pair of sockets.
pub(crate) fn pair() -> Result<[OwnedFd; 2], Why> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(os)?;
    Ok([ours, theirs])
}

pub(crate) fn send(socket: &OwnedFd, ring: impl AsFd, setup: &SqSetup) -> Result<(), Why> {
    let mut bytes = [0; size_of::<SqSetup>()];
    call::write(setup, &mut bytes);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [ring.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).map_err(os)?;
    Ok(())
}

pub(crate) fn receive(socket: &OwnedFd) -> Result<(OwnedFd, SqSetup), Why> {
    let mut bytes = [0; size_of::<SqSetup>()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).map_err(os)?;
    let ring = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let setup = call::read(&bytes).map_err(|errno| Why::from(format!("what came is no setup: {errno}")))?;
    Ok((ring.ok_or_else(|| Why::from("no descriptor came".to_owned()))?, setup))
}

fn os(errno: rustix::io::Errno) -> Why {
    errno.raw_os_error().into()
}
