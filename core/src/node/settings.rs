//! Settings that change while the node runs. Each is checked like those of [`Config`](super::Config); one that makes no sense
//! changes nothing. What is held already stays, also above a new limit: that bounds what comes.

use super::{Node, most_half_open};
use crate::{
    behaviour::Behaviour,
    errors::InvalidConfig,
    protocols::{relay::hop, rendezvous::server},
    swarm::resources::Limits,
    time::Instant,
};

/// Why a setting was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// It makes no sense.
    #[error(transparent)]
    Invalid(#[from] InvalidConfig),
    /// The node was made without that role; [`Config`](super::Config) gives it.
    #[error("the node was made without being {0}")]
    NoSuchRole(&'static str),
}

impl Node {
    /// How many connections and streams there may be, and how much memory, by scope, from now on.
    ///
    /// # Errors
    /// As from [`SwarmConfig::validate`](crate::swarm::SwarmConfig::validate).
    pub fn set_limits(&mut self, now: Instant, limits: Limits) -> Result<(), InvalidConfig> {
        self.advance(now);
        limits.validate_with(self.swarm.pruner.config())?;
        self.transport.quic.limit_half_open(most_half_open(&limits.transient));
        self.swarm.resources.set_limits(limits);
        self.pump();
        Ok(())
    }

    /// What the relay that we are allows from now on. Reservations last as long as they were granted for, and circuits that are
    /// open keep their limits, but for [`relay_byte_rate`](crate::protocols::relay::limits::RelayLimits::relay_byte_rate),
    /// which is that of all at once.
    ///
    /// # Errors
    /// The configuration makes no sense, or we are no relay.
    pub fn set_hop(&mut self, now: Instant, config: hop::Config) -> Result<(), SettingError> {
        config.validate()?;
        let rate = config.limits.relay_byte_rate;
        self.with::<hop::Hop, _>(now, |hop, _| hop.configure(config))
            .ok_or(SettingError::NoSuchRole("a relay"))?;
        self.splices.set_rate(rate, self.now);
        self.renew_specs::<hop::Hop>();
        self.pump();
        Ok(())
    }

    /// What the rendezvous point that we are allows from now on. Registrations last as long as they were granted for.
    ///
    /// # Errors
    /// The configuration makes no sense, or we are no rendezvous point.
    pub fn set_rendezvous_server(
        &mut self,
        now: Instant,
        config: server::Config,
    ) -> Result<(), SettingError> {
        config.validate()?;
        self.with::<server::Server, _>(now, |server, _| server.configure(config))
            .ok_or(SettingError::NoSuchRole("a rendezvous point"))?;
        self.renew_specs::<server::Server>();
        self.pump();
        Ok(())
    }

    /// The protocols of a behaviour may have other limits than before.
    fn renew_specs<B: Behaviour>(&mut self) {
        for slot in self.behaviours.iter_mut().filter(|s| (&*s.behaviour as &dyn std::any::Any).is::<B>()) {
            slot.specs = slot.behaviour.protocols().to_vec();
            for spec in &slot.specs {
                if let Some(route) =
                    self.routes.get_mut(&spec.name).filter(|route| route.inbound_per_peer > 0)
                {
                    (route.framing, route.inbound_per_peer) = (spec.framing, spec.inbound_per_peer);
                }
            }
        }
    }
}
