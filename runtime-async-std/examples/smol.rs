//! Peerless on smol: the driver is a future, and any executor can run it. One node pings another.

use std::error::Error;

use peerless_async_std::{Config, build};
use peerless_core::{identity::Identity, node, rng::Rng};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let node = |n| node::Config::new(Identity::generate(&mut Rng::new([n; 32])));
        let listen = vec!["127.0.0.1:0".parse()?];
        let (server, driver) = build(node(1), Config { listen, ..Config::default() })?;
        smol::spawn(driver).detach();
        let (client, driver) = build(node(2), Config::default())?;
        smol::spawn(driver).detach();

        let address = server.with(|node, _| node.addresses().advertised().remove(0));
        let connection = client.dial(Some(server.peer()), &[address]).await?;
        println!("round trip: {:?}", client.ping(connection).await?);
        client.shutdown().await;
        server.shutdown().await;
        Ok(())
    })
}
