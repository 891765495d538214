//! Two nodes in one process on the simulated network: no socket, no clock, and the same lines every time. A test is made
//! like this, with `assert_story!` in place of `print!`; `World::run_for` and the verbs on `World` are the steps.

use peerless_tests::world::{World, ms};

fn main() {
    let mut world = World::new(1);
    let bob = world.host("Bob").start();
    let alice = world.host("Alice").start();

    let connection = world.dial(alice, bob);
    println!("After {} the handshake is over:\n{}", world.now(), world.transcript());

    let (start, rtt) = (world.now(), world.ping(alice, connection));
    println!("A ping took {rtt:?}:\n{}", world.transcript().since(start));

    let start = world.now();
    world.start_echo(alice, connection, 1000);
    for _ in 0..3 {
        world.run_for(ms(10));
        println!("At {} there are {} packets in flight.", world.now(), world.in_flight());
    }
    world.run_for(ms(1000));
    world.close(alice, connection);
    world.run_for(ms(100));
    println!("The rest:\n{}", world.transcript().since(start));

    world.shutdown();
    world.assert_empty();
}
