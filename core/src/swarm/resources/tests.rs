use std::net::Ipv4Addr;

use super::*;
use crate::{rng::Rng, swarm::gate::tests::peer};

fn at(secs: u64) -> Instant {
    Instant::from_nanos(secs * 1_000_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn exceeded<T>(scope: Scope, resource: Resource) -> Result<T, Exceeded> {
    Err(Exceeded { scope, resource })
}

#[test]
fn what_is_refused_by_one_scope_is_taken_from_none() {
    let peer_limit = ScopeLimit { connections: 1, ..ScopeLimit::UNLIMITED };
    let mut held = Resources::new(Limits { peer: peer_limit, ..Limits::unlimited() });
    let first = held.open_connection(at(0), Direction::Outbound, None).unwrap();
    held.set_peer(first, peer(1)).unwrap();
    let second = held.open_connection(at(0), Direction::Inbound, Some(ip("192.0.2.1"))).unwrap();
    let before = (held.system(), held.transient(), held.peer(&peer(1)));
    assert_eq!(held.set_peer(second, peer(1)), exceeded(Scope::Peer, Resource::Connections));
    assert_eq!((held.system(), held.transient(), held.peer(&peer(1))), before);
    assert_eq!(held.refusals().collect::<Vec<_>>(), [(Scope::Peer, Resource::Connections, 1)]);
    held.close_connection(second);
    held.close_connection(second);
    held.close_connection(first);
    assert!(held.is_empty(), "{held:?}");
}

#[test]
fn inbound_connections_leave_room_to_dial() {
    let limits = Limits {
        system: ScopeLimit { connections: 3, inbound_connections: 2, ..ScopeLimit::UNLIMITED },
        ..Limits::unlimited()
    };
    let mut held = Resources::new(limits);
    let open = |held: &mut Resources, direction| held.open_connection(at(0), direction, None).map(|_| ());
    assert_eq!(open(&mut held, Direction::Inbound), Ok(()));
    assert_eq!(open(&mut held, Direction::Inbound), Ok(()));
    assert_eq!(open(&mut held, Direction::Inbound), exceeded(Scope::System, Resource::InboundConnections));
    assert_eq!(open(&mut held, Direction::Outbound), Ok(()));
    assert_eq!(open(&mut held, Direction::Outbound), exceeded(Scope::System, Resource::Connections));
}

#[test]
fn hosts_households_sites_and_networks_have_their_own_numbers() {
    let network = "10.0.0.0/8".parse().unwrap();
    let limits = Limits {
        per_ip: 2,
        per_v6_56: 3,
        per_v6_48: 4,
        networks: vec![NetworkLimit { network, connections: 5 }],
        ..Limits::unlimited()
    };
    let mut held = Resources::new(limits);
    let mut fill = |texts: &[&str]| {
        let mut opened = 0;
        for round in 0.. {
            let from = ip(texts[round % texts.len()]);
            match held.open_connection(at(0), Direction::Inbound, Some(from)) {
                Ok(_) => opened += 1,
                Err(exceeded) => return (opened, exceeded.scope),
            }
        }
        unreachable!("every place has a limit")
    };
    assert_eq!(fill(&["192.0.2.1"]), (2, Scope::Ip));
    assert_eq!(fill(&["::ffff:192.0.2.1"]), (0, Scope::Ip), "it is the same host");
    assert_eq!(fill(&["2001:db8::1", "2001:db8::2"]), (2, Scope::Ip), "a /64 is one host");
    assert_eq!(fill(&["2001:db8:0:1::1"]), (1, Scope::V6Slash56));
    assert_eq!(fill(&["2001:db8:0:100::1"]), (1, Scope::V6Slash48));
    assert_eq!(fill(&["10.0.0.1", "10.200.0.1"]), (5, Scope::Network));
    assert_eq!(held.inbound_from(ip("10.7.7.7")), 5);
}

#[test]
fn outbound_connections_come_from_nowhere() {
    let mut held = Resources::new(Limits { per_ip: 1, ..Limits::unlimited() });
    for _ in 0..3 {
        held.open_connection(at(0), Direction::Outbound, Some(ip("192.0.2.1"))).unwrap();
    }
    assert_eq!(held.inbound_from(ip("192.0.2.1")), 0);
}

#[test]
fn a_spoofed_address_cannot_use_up_what_its_owner_may_have() {
    let mut held = Resources::new(Limits { per_ip: 8, ..Limits::unlimited() });
    let victim = Some(ip("192.0.2.1"));
    for _ in 0..4 {
        assert_eq!(held.may_connect(at(0), victim, false), Ok(()));
        held.open_connection(at(0), Direction::Inbound, victim).unwrap();
    }
    assert!(held.may_connect(at(0), victim, false).is_err());
    assert_eq!(held.may_connect(at(0), victim, true), Ok(()));

    let mut held =
        Resources::new(Limits { rate_per_ip: Limits::default().rate_per_ip, ..Limits::unlimited() });
    let spoofed = (0..100)
        .take_while(|_| {
            held.may_connect(at(9), victim, false).is_ok() && {
                held.open_connection(at(9), Direction::Inbound, victim).unwrap();
                true
            }
        })
        .count();
    assert_eq!(spoofed, 8);
    assert_eq!(held.may_connect(at(9), victim, true), Ok(()));
    assert_eq!(held.refusals().count(), 0, "to ask whether one may is not to be refused");
}

#[test]
fn rates_of_an_address_and_of_its_subnet() {
    let defaults = Limits::default();
    let limits = Limits {
        rate_per_ip: defaults.rate_per_ip,
        rate_per_subnet: defaults.rate_per_subnet,
        networks: defaults.networks,
        ..Limits::unlimited()
    };
    let mut held = Resources::new(limits);
    let mut flood = |now, hosts: u8| {
        let mut passed = 0;
        let mut last = None;
        for n in 0..1000_u32 {
            let from = Ipv4Addr::new(192, 0, 2, (n % u32::from(hosts)) as u8 + 1);
            match held.open_connection(now, Direction::Inbound, Some(from.into())) {
                Ok(_) => passed += 1,
                Err(exceeded) => last = Some(exceeded),
            }
        }
        (passed, last)
    };
    let rate = |scope| Some(Exceeded { scope, resource: Resource::Rate });
    assert_eq!(flood(at(1), 1), (16, rate(Scope::Ip)));
    assert_eq!(flood(at(2), 1), (5, rate(Scope::Ip)), "five more in the second after");
    assert_eq!(flood(at(100), 200), (64, rate(Scope::Subnet)));
    assert_eq!(flood(at(101), 200), (20, rate(Scope::Subnet)));
    for _ in 0..1000 {
        held.open_connection(at(101), Direction::Inbound, Some(ip("127.0.0.1"))).unwrap();
    }
}

#[test]
fn memory_counts_in_every_scope_that_a_stream_belongs_to() {
    let limits = Limits {
        protocol: ScopeLimit { memory: 3 * STREAM_MEMORY, ..ScopeLimit::UNLIMITED },
        ..Limits::unlimited()
    };
    let mut held = Resources::new(limits);
    let connection = held.open_connection(at(0), Direction::Outbound, None).unwrap();
    held.set_peer(connection, peer(1)).unwrap();
    let stream = held.open_stream(connection, Direction::Outbound).unwrap();
    held.set_queued(stream, 10_000).unwrap();
    let name = ProtocolName::from_static("/x");
    assert_eq!(held.set_protocol(stream, "x", &name), exceeded(Scope::Protocol, Resource::Memory));
    held.set_queued(stream, 2 * STREAM_MEMORY).unwrap();
    held.set_protocol(stream, "x", &name).unwrap();
    assert_eq!(held.set_queued(stream, 2 * STREAM_MEMORY + 1), exceeded(Scope::Protocol, Resource::Memory));
    assert_eq!(held.service("x").memory, 3 * STREAM_MEMORY);
    assert_eq!(held.peer(&peer(1)).memory, 3 * STREAM_MEMORY + CONNECTION_MEMORY);
    assert_eq!(held.transient(), Usage::default());
    held.close_connection(connection);
    assert_eq!(held.system(), Usage::default(), "a connection takes its streams along");
    held.close_stream(stream);
    assert!(held.is_empty(), "{held:?}");
}

/// What is held, as a list of what is alive, added up anew for each question.
#[derive(Default)]
struct Naive {
    connections: BTreeMap<ConnectionShare, (Direction, Option<IpAddr>, Option<PeerId>)>,
    streams: BTreeMap<StreamShare, (ConnectionShare, Direction, Option<&'static str>, usize)>,
}

impl Naive {
    fn sum(
        &self,
        connection: impl Fn(&(Direction, Option<IpAddr>, Option<PeerId>)) -> bool,
        stream: impl Fn(ConnectionShare, Option<&'static str>) -> bool,
    ) -> Usage {
        let mut sum = Usage::default();
        for it in self.connections.values().filter(|it| connection(it)) {
            sum.add(&Usage::connection(it.0, CONNECTION_MEMORY));
        }
        for (of, direction, purpose, memory) in self.streams.values() {
            if stream(*of, *purpose) {
                sum.add(&Usage::stream(*direction, *memory));
            }
        }
        sum
    }

    fn system(&self) -> Usage {
        self.sum(|_| true, |_, _| true)
    }

    fn transient(&self) -> Usage {
        self.sum(|it| it.2.is_none(), |_, purpose| purpose.is_none())
    }

    fn peer(&self, peer: PeerId) -> Usage {
        self.sum(|it| it.2 == Some(peer), |of, _| self.connections[&of].2 == Some(peer))
    }

    fn connection(&self, id: ConnectionShare) -> Usage {
        self.sum(|_| false, |of, _| of == id)
    }

    fn service(&self, name: &'static str) -> Usage {
        self.sum(|_| false, |_, purpose| purpose == Some(name))
    }

    fn from(&self, ip: IpAddr) -> usize {
        self.connections.values().filter(|it| it.1 == Some(ip)).count()
    }
}

/// Whether each of these scopes has room.
fn room(scopes: &[(ScopeLimit, Usage)], more: Usage) -> bool {
    scopes.iter().all(|(limit, held)| limit.admits(held, &more).is_ok())
}

#[test]
fn a_hundred_thousand_random_requests_are_decided_as_by_adding_up_what_is_alive() {
    let tight = |connections, streams, kib: usize| ScopeLimit {
        connections,
        inbound_connections: connections * 2 / 3,
        outbound_connections: connections * 2 / 3,
        streams,
        inbound_streams: streams * 2 / 3,
        outbound_streams: streams * 2 / 3,
        memory: kib << 10,
    };
    let limits = Limits {
        system: tight(14, 40, 800),
        transient: tight(6, 20, 200),
        service: tight(0, 12, 60),
        protocol: tight(0, 14, 70),
        peer: tight(3, 12, 160),
        connection: tight(0, 9, 50),
        stream: tight(0, 2, 12),
        per_ip: 2,
        ..Limits::unlimited()
    };
    let seed: u64 = 0x5eed_0001;
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = Rng::new(key);
    let mut held = Resources::new(limits.clone());
    let mut naive = Naive::default();
    let names = ["a", "b", "c"];
    let mut refused = 0;
    for step in 0..100_000 {
        let direction = [Direction::Inbound, Direction::Outbound][rng.below(2) as usize];
        let some_connection = naive.connections.keys().nth(rng.below(14) as usize).copied();
        let some_stream = naive.streams.keys().nth(rng.below(40) as usize).copied();
        let (done, expected) = match rng.below(12) {
            0..=1 => {
                let from: IpAddr = Ipv4Addr::new(192, 0, 2, rng.below(4) as u8).into();
                let from = Some(from).filter(|_| direction == Direction::Inbound);
                let scopes = [(limits.system, naive.system()), (limits.transient, naive.transient())];
                let expected = room(&scopes, Usage::connection(direction, CONNECTION_MEMORY))
                    && from.is_none_or(|from| naive.from(from) < 2);
                let opened = held.open_connection(at(0), direction, from);
                if let Ok(id) = opened {
                    naive.connections.insert(id, (direction, from, None));
                }
                (opened.is_ok(), expected)
            }
            2..=3 => {
                let Some(id) = some_connection else { continue };
                let peer = peer(rng.below(5) as u8);
                let it = naive.connections[&id];
                let mut usage = Usage::connection(it.0, CONNECTION_MEMORY);
                usage.add(&naive.connection(id));
                let expected = it.2.is_some() || room(&[(limits.peer, naive.peer(peer))], usage);
                let set = held.set_peer(id, peer).is_ok();
                if set && it.2.is_none() {
                    naive.connections.get_mut(&id).unwrap().2 = Some(peer);
                }
                (set, expected)
            }
            4 => {
                let Some(id) = some_connection.filter(|_| rng.below(3) == 0) else { continue };
                let streams: Vec<_> =
                    naive.streams.iter().filter(|(_, it)| it.0 == id).map(|(stream, _)| *stream).collect();
                for stream in streams {
                    held.close_stream(stream);
                    naive.streams.remove(&stream);
                }
                held.close_connection(id);
                naive.connections.remove(&id);
                (true, true)
            }
            5..=7 => {
                let Some(id) = some_connection else { continue };
                let share = Usage::stream(direction, STREAM_MEMORY);
                let mut scopes = vec![
                    (limits.system, naive.system()),
                    (limits.transient, naive.transient()),
                    (limits.connection, naive.connection(id)),
                    (limits.stream, Usage::default()),
                ];
                scopes.extend(naive.connections[&id].2.map(|peer| (limits.peer, naive.peer(peer))));
                let expected = room(&scopes, share);
                let opened = held.open_stream(id, direction);
                if let Ok(stream) = opened {
                    naive.streams.insert(stream, (id, direction, None, STREAM_MEMORY));
                }
                (opened.is_ok(), expected)
            }
            8 => {
                let Some(stream) = some_stream else { continue };
                let name = names[rng.below(3) as usize];
                let it = naive.streams[&stream];
                let of_name = naive.service(name);
                let scopes = [(limits.service, of_name), (limits.protocol, of_name)];
                let expected = it.2.is_some() || room(&scopes, Usage::stream(it.1, it.3));
                let set = held.set_protocol(stream, name, &ProtocolName::from_static(name)).is_ok();
                if set && it.2.is_none() {
                    naive.streams.get_mut(&stream).unwrap().2 = Some(name);
                }
                (set, expected)
            }
            9..=10 => {
                let Some(stream) = some_stream else { continue };
                let bytes = rng.below(16 << 10) as usize;
                let (of, direction, purpose, before) = naive.streams[&stream];
                let memory = bytes + STREAM_MEMORY;
                let mut scopes = vec![
                    (limits.system, naive.system()),
                    (limits.connection, naive.connection(of)),
                    (limits.stream, Usage::stream(direction, before)),
                ];
                scopes.extend(naive.connections[&of].2.map(|peer| (limits.peer, naive.peer(peer))));
                match purpose {
                    Some(name) => {
                        scopes.push((limits.service, naive.service(name)));
                        scopes.push((limits.protocol, naive.service(name)));
                    }
                    None => scopes.push((limits.transient, naive.transient())),
                }
                let more = Usage::memory(memory.saturating_sub(before));
                let expected = room(&scopes, more);
                let set = held.set_queued(stream, bytes).is_ok();
                if set {
                    naive.streams.get_mut(&stream).unwrap().3 = memory;
                }
                (set, expected)
            }
            _ => {
                let Some(stream) = some_stream else { continue };
                held.close_stream(stream);
                naive.streams.remove(&stream);
                (true, true)
            }
        };
        assert_eq!(done, expected, "step {step} of seed {seed:#x}");
        refused += u64::from(!done);
        assert_eq!(
            (held.system(), held.transient()),
            (naive.system(), naive.transient()),
            "step {step} of seed {seed:#x}"
        );
        let n = rng.below(5) as u8;
        assert_eq!(held.peer(&peer(n)), naive.peer(peer(n)), "step {step} of seed {seed:#x}");
        let name = names[rng.below(3) as usize];
        assert_eq!(
            (held.service(name), held.protocol(name)),
            (naive.service(name), naive.service(name)),
            "step {step} of seed {seed:#x}"
        );
    }
    assert_eq!(held.refusals().map(|(.., count)| count).sum::<u64>(), refused, "seed {seed:#x}");
    assert!(refused > 10_000, "the limits were hardly met: {refused}");
    for stream in naive.streams.keys() {
        held.close_stream(*stream);
    }
    for connection in naive.connections.keys() {
        held.close_connection(*connection);
    }
    assert!(held.is_empty(), "{held:?}");
}
