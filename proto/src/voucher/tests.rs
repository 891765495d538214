use super::*;
use crate::testing::{hex, keypair};
use proptest::collection::vec;
use proptest::prelude::*;

/// Written by go-libp2p 0.48.0.
const GO: &str = "0a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c120203021a560a2600240801\
    12208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c12260024080112208139770ea87d175f56a35466c34c\
    7ecccb8d8a91b4ee37a25df60f5b8fc9b3941880e2cfaa062a4031285ce1e0c9c3b03e318e845c0a2c505908f76e0321c92c4c84e7651285\
    a62f4331fbcc4e57611df9c73f46dace9ca3a38c51365d148c2acd54ee8838f07702";

fn peer(byte: u8) -> PeerId {
    keypair(byte).public().to_peer_id()
}

fn voucher() -> Voucher {
    Voucher { relay: peer(1), peer: peer(2), expiration: 1_700_000_000 }
}

fn open(signer: u8, message: &pb::relay::VoucherPayload) -> Result<Voucher, VoucherError> {
    Voucher::open(&Envelope::sign(&keypair(signer), DOMAIN, PAYLOAD_TYPE, message.encode_to_vec()).unwrap())
}

fn message() -> pb::relay::VoucherPayload {
    pb::relay::VoucherPayload {
        relay: Some(peer(1).to_bytes()),
        peer: Some(peer(2).to_bytes()),
        expiration: Some(1),
    }
}

#[test]
fn a_voucher_of_go_opens_and_is_written_alike() {
    assert_eq!(Voucher::open(&Envelope::decode(&hex(GO)).unwrap()), Ok(voucher()));
    assert_eq!(voucher().seal(&keypair(1)).unwrap().encode(), hex(GO));
}

#[test]
fn only_the_relay_itself_signs() {
    assert_eq!(voucher().seal(&keypair(2)), Err(VoucherError::Signer(peer(2))));
    assert!(open(1, &message()).is_ok());
    assert_eq!(open(2, &message()), Err(VoucherError::Signer(peer(2))));
}

#[test]
fn nothing_may_be_missing() {
    let no_id = Err(VoucherError::PeerId(PeerIdError::BadMultihash));
    assert_eq!(open(1, &pb::relay::VoucherPayload { relay: None, ..message() }), no_id);
    assert_eq!(open(1, &pb::relay::VoucherPayload { peer: None, ..message() }), no_id);
    let no_end = pb::relay::VoucherPayload { expiration: None, ..message() };
    assert_eq!(open(1, &no_end), Err(VoucherError::NoExpiration));
}

#[test]
fn a_voucher_is_for_one_relay_one_peer_and_some_time() {
    let voucher = voucher();
    assert_eq!(voucher.verify(&peer(1), &peer(2), voucher.expiration - 1), Ok(()));
    assert_eq!(voucher.verify(&peer(3), &peer(2), 0), Err(VoucherError::WrongRelay(peer(1))));
    assert_eq!(voucher.verify(&peer(1), &peer(3), 0), Err(VoucherError::WrongPeer(peer(2))));
    let expired = Err(VoucherError::Expired(voucher.expiration));
    assert_eq!(voucher.verify(&peer(1), &peer(2), voucher.expiration), expired);
}

proptest! {
    #[test]
    fn round_trip(relay in 1u8..9, client in 1u8..9, expiration in any::<u64>()) {
        let voucher = Voucher { relay: peer(relay), peer: peer(client), expiration };
        let sealed = voucher.seal(&keypair(relay)).unwrap().encode();
        prop_assert_eq!(Voucher::open(&Envelope::decode(&sealed).unwrap()), Ok(voucher));
    }

    #[test]
    fn random_payloads_never_panic(payload in vec(any::<u8>(), 0..100)) {
        let envelope = Envelope::sign(&keypair(1), DOMAIN, PAYLOAD_TYPE, payload).unwrap();
        prop_assert!(Voucher::open(&envelope).is_err());
    }
}
