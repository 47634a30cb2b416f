//! The sockets of a task, driven by hand.

use super::*;

#[test]
fn only_dictionaries_go_to_the_node() {
    assert!(is_krpc(b"d1:q4:pinge"));
    for other in [&b""[..], b"\x01utp", b"\x41utp", b"\0\0\0\x03error"] {
        assert!(!is_krpc(other));
    }
}

#[tokio::test]
async fn a_task_that_works_on_and_on_lets_others_in_between() {
    let (mut turns, now) = (Turns::default(), Time::from_secs(1));
    let lets = async |turns: &mut Turns, now| {
        let mut turn = std::pin::pin!(turns.are_over(true, now));
        std::future::poll_fn(|cx| Poll::Ready(turn.as_mut().poll(cx).is_pending())).await
    };
    assert!(!lets(&mut turns, now).await);
    assert!(!lets(&mut turns, now + LONGEST_RUN / 2).await);
    assert!(lets(&mut turns, now + LONGEST_RUN).await);
    // The next run begins when it goes on.
    let now = now + 2 * LONGEST_RUN;
    assert!(!lets(&mut turns, now).await);
    assert!(!lets(&mut turns, now + LONGEST_RUN / 2).await);
    assert!(turns.are_over(false, now + LONGEST_RUN).await);
    assert!(!lets(&mut turns, now + LONGEST_RUN).await);
}

#[cfg(target_os = "linux")]
mod lingering {
    use std::net::{SocketAddr, UdpSocket as StdSocket};

    use super::*;
    use crate::net::tempo::{QUICK, QUICK_IN_A_ROW};
    use crate::net::udp::{Batching, UdpSocket};

    /// Sockets whose clock is turned by hand, and somebody who sends to them.
    struct Stage {
        ports: Ports,
        locals: Vec<SocketAddr>,
        sender: StdSocket,
        now: Time,
    }

    impl Stage {
        fn new(sockets: u8) -> Self {
            let now = Time::from_secs(1);
            let bind = |_| UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Batching::Native).unwrap();
            let sockets: Vec<_> = (0..sockets).map(bind).collect();
            let locals = sockets.iter().map(UdpSocket::local_addr).collect();
            let ports = (0..).zip(sockets).map(|(index, socket)| Port::new(index, socket)).collect();
            let mut ports = Ports::new(ports, now);
            ports.allow_linger();
            Self { ports, locals, sender: StdSocket::bind("127.0.0.1:0").unwrap(), now }
        }

        fn send(&self, socket: usize) {
            self.sender.send_to(b"d", self.locals[socket]).unwrap();
        }

        fn lingers(&mut self) -> bool {
            self.ports.linger(self.now, Time::NEVER)
        }

        /// A turn `pause` later; at which sockets datagrams came.
        fn turn(&mut self, pause: Duration) -> Vec<u8> {
            self.now += pause;
            let mut came = Vec::new();
            self.ports.receive(self.now, &mut Outbox::new(), |index, _, _| came.push(index));
            came
        }

        /// The same after the runtime has said that there is something.
        async fn woken(&mut self) -> Vec<u8> {
            tokio::time::timeout(Duration::from_secs(20), self.ports.ready()).await.unwrap();
            self.turn(QUICK / 4)
        }

        /// Datagrams come one after the other at a socket.
        async fn hurry(&mut self, socket: u8) {
            for _ in 0..=QUICK_IN_A_ROW {
                self.send(socket.into());
                assert_eq!(self.woken().await, [socket]);
            }
        }
    }

    #[tokio::test]
    async fn a_task_lingers_while_datagrams_come_one_after_the_other() {
        let mut stage = Stage::new(1);
        stage.send(0);
        assert!(!stage.lingers(), "not yet");
        assert_eq!(stage.woken().await, [0]);
        stage.hurry(0).await;
        for _ in 0..3 {
            stage.send(0);
            assert!(stage.lingers());
            assert_eq!(stage.turn(QUICK), [0]);
        }
        assert!(!stage.lingers(), "nobody sends any more");
        stage.send(0);
        assert!(!stage.lingers(), "so the runtime is asked again");
        assert_eq!(stage.woken().await, [0]);
        // One that comes late is not waited for, either.
        stage.hurry(0).await;
        stage.send(0);
        assert!(stage.lingers());
        assert_eq!(stage.turn(2 * QUICK), [0]);
        stage.send(0);
        assert!(!stage.lingers());
    }

    #[tokio::test]
    async fn what_is_due_and_what_is_broken_is_not_lingered_over() {
        let mut stage = Stage::new(1);
        stage.hurry(0).await;
        stage.send(0);
        assert!(!stage.ports.linger(stage.now, stage.now + LONGEST_LINGER));
        stage.ports.is_broken = true;
        assert!(!stage.lingers());
        stage.ports.is_broken = false;
        assert!(stage.ports.linger(stage.now, stage.now + 2 * LONGEST_LINGER));
    }

    #[tokio::test]
    async fn a_task_lingers_where_one_socket_alone_is_busy() {
        let mut stage = Stage::new(2);
        stage.hurry(1).await;
        // Beside it one has come at the other socket, too.
        stage.send(0);
        stage.send(1);
        let mut came = stage.woken().await;
        while came.len() < 2 {
            came.extend(stage.woken().await);
        }
        came.sort_unstable();
        assert_eq!(came, [0, 1]);
        let both_at_once = stage.ports.busy.is_none();
        stage.send(1);
        if both_at_once {
            assert!(!stage.lingers());
        }
        assert_eq!(stage.woken().await, [1]);
        // One alone at the other is none that others follow.
        stage.send(0);
        assert_eq!(stage.woken().await, [0]);
        stage.send(1);
        assert!(!stage.lingers());
        assert_eq!(stage.woken().await, [1]);
        stage.send(1);
        assert!(stage.lingers());
        assert_eq!(stage.turn(QUICK), [1]);
    }
}
