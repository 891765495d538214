// go-peer is a small go-libp2p peer for the interop suite: QUIC below, circuits through relays, ping, identify, echo, perf and
// rendezvous.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	usage       = "usage: go-peer relay|listen|ping|echo|identify|rendezvous|register|discover [MULTIADDR] [--listen MA] ..."
	dialTimeout = 25 * time.Second
)

// options is the command line, the same for every peer of the suite.
type options struct {
	command         string
	target          string
	listen          []string
	relays          []string
	security        string
	count           int
	bytes           int64
	circuitBytes    int64
	circuitDuration int64
	seed            string
	keep            bool
	point           string
	namespace       string
	ttl             int
	limit           int
	watch           bool
}

func main() {
	opts, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := run(opts); err != nil {
		emit(map[string]any{"event": "error", "message": err.Error()})
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	if len(args) == 0 {
		return nil, errors.New(usage)
	}
	opts := &options{command: args[0]}
	flags := flag.NewFlagSet("go-peer", flag.ContinueOnError)
	flags.Bool("json", true, "NDJSON on standard output (the only form there is)")
	flags.Func("listen", "address to listen on (repeatable)", collect(&opts.listen))
	flags.Func("relay", "relay to reserve at (repeatable)", collect(&opts.relays))
	flags.StringVar(&opts.security, "security", "", "the one security offered over circuits: tls or noise")
	flags.IntVar(&opts.count, "c", 5, "pings to send")
	flags.Int64Var(&opts.bytes, "bytes", 0, "bytes to echo")
	flags.Int64Var(&opts.circuitBytes, "circuit-bytes", 0, "bytes a circuit may carry each way, 0 for no limit")
	flags.Int64Var(&opts.circuitDuration, "circuit-duration", 0, "seconds a circuit may live, 0 for no limit")
	flags.StringVar(&opts.seed, "seed", "", "0 to 255: the key whose seed is this byte 32 times, the same in every run")
	flags.BoolVar(&opts.keep, "keep", false, "listen: leave reserving to AutoRelay, which renews; register: stay")
	flags.StringVar(&opts.point, "point", "", "rendezvous point to register or discover at")
	flags.StringVar(&opts.namespace, "namespace", "", "namespace to register in or to discover")
	flags.IntVar(&opts.ttl, "ttl", 0, "seconds to register for, 0 for what the point grants by itself")
	flags.IntVar(&opts.limit, "limit", 0, "registrations of one page, 0 for what the point answers by itself")
	flags.BoolVar(&opts.watch, "watch", false, "go on asking for what is new")
	for rest := args[1:]; ; {
		if err := flags.Parse(rest); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			break
		}
		if opts.target != "" {
			return nil, errors.New("only one multiaddr may be given")
		}
		opts.target, rest = flags.Arg(0), flags.Args()[1:]
	}
	return opts, nil
}

func collect(into *[]string) func(string) error {
	return func(value string) error {
		*into = append(*into, value)
		return nil
	}
}

func run(opts *options) error {
	h, err := newHost(opts)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := report(h); err != nil {
		return err
	}
	serveEcho(h)
	servePerf(h)

	switch opts.command {
	case "relay":
		if err := serveRelay(h, opts); err != nil {
			return err
		}
		return untilTerminated()
	case "listen":
		if opts.keep {
			return untilTerminated()
		}
		for _, address := range opts.relays {
			if err := reserve(h, address); err != nil {
				return err
			}
		}
		return untilTerminated()
	case "rendezvous":
		return servePoint(h)
	case "register":
		return register(context.Background(), h, opts)
	case "discover":
		return discover(context.Background(), h, opts)
	case "ping", "echo", "identify":
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		return dial(network.WithAllowLimitedConn(ctx, "interop"), h, opts)
	default:
		return errors.New(usage)
	}
}

func newHost(opts *options) (host.Host, error) {
	settings := []libp2p.Option{
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.EnableRelay(),
		libp2p.DisableMetrics(),
		// All of the suite comes from one address, and the benches come in thousands.
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
	}
	if opts.seed != "" {
		key, err := keyOf(opts.seed)
		if err != nil {
			return nil, err
		}
		settings = append(settings, libp2p.Identity(key))
	}
	if opts.keep && opts.command == "listen" {
		relays, err := addrInfos(opts.relays)
		if err != nil {
			return nil, err
		}
		settings = append(settings,
			libp2p.EnableAutoRelayWithStaticRelays(relays, autorelay.WithBootDelay(0)),
			libp2p.ForceReachabilityPrivate(),
		)
	}
	if len(opts.listen) == 0 {
		settings = append(settings, libp2p.NoListenAddrs)
	} else {
		settings = append(settings, libp2p.ListenAddrStrings(opts.listen...))
	}
	switch opts.security {
	case "":
	case "tls":
		settings = append(settings, libp2p.Security(libp2ptls.ID, libp2ptls.New))
	case "noise":
		settings = append(settings, libp2p.Security(noise.ID, noise.New))
	default:
		return nil, fmt.Errorf("no such security: %s", opts.security)
	}
	return libp2p.New(settings...)
}

// keyOf is the Ed25519 key whose seed is the byte 32 times.
func keyOf(seed string) (crypto.PrivKey, error) {
	number, err := strconv.ParseUint(seed, 10, 8)
	if err != nil {
		return nil, err
	}
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{byte(number)}, 32)))
	return key, err
}

func addrInfos(addresses []string) ([]peer.AddrInfo, error) {
	infos := []peer.AddrInfo{}
	for _, address := range addresses {
		info, err := peer.AddrInfoFromString(address)
		if err != nil {
			return nil, err
		}
		infos = append(infos, *info)
	}
	return infos, nil
}

// report prints what happens on the host: listening addresses, connections, identifications.
func report(h host.Host) error {
	identified, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.BufSize(64))
	if err != nil {
		return err
	}
	go func() {
		for e := range identified.Out() {
			emitIdentified(e.(event.EvtPeerIdentificationCompleted))
		}
	}()
	h.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { emitConnected(c) }})
	for _, address := range h.Network().ListenAddresses() {
		if address.String() != "/p2p-circuit" {
			emit(map[string]any{"event": "listening", "address": full(address, h.ID())})
		}
	}
	return nil
}

func serveRelay(h host.Host, opts *options) error {
	resources := relay.DefaultResources()
	resources.Limit = nil
	if opts.circuitBytes != 0 || opts.circuitDuration != 0 {
		resources.Limit = &relay.RelayLimit{
			Data:     orUnlimited(opts.circuitBytes, 1<<62),
			Duration: time.Duration(orUnlimited(opts.circuitDuration, 1<<31)) * time.Second,
		}
	}
	const many = 1 << 20
	resources.MaxReservations, resources.MaxCircuits = many, many
	resources.MaxReservationsPerIP, resources.MaxReservationsPerASN = many, many
	everyAddress := relay.WithReservationAddressFilter(func(ma.Multiaddr) bool { return true })
	_, err := relay.New(h, relay.WithResources(resources), everyAddress)
	return err
}

func orUnlimited(limit, unlimited int64) int64 {
	if limit == 0 {
		return unlimited
	}
	return limit
}

func reserve(h host.Host, address string) error {
	at, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	reservation, err := client.Reserve(ctx, h, *at)
	if err != nil {
		return err
	}
	h.ConnManager().Protect(at.ID, "relay")
	addresses := []string{}
	for _, address := range reservation.Addrs {
		addresses = append(addresses, fmt.Sprintf("%s/p2p-circuit/p2p/%s", full(address, at.ID), h.ID()))
	}
	emit(map[string]any{
		"event":     "reservation",
		"relay":     at.ID.String(),
		"expires":   reservation.Expiration.Unix(),
		"addresses": addresses,
		"voucher":   reservation.Voucher != nil,
	})
	return nil
}

func untilTerminated() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
	return nil
}

func emitConnected(c network.Conn) {
	address := c.RemoteMultiaddr()
	_, notRelayed := address.ValueForProtocol(ma.P_CIRCUIT)
	emit(map[string]any{
		"event":   "connected",
		"peer":    c.RemotePeer().String(),
		"address": full(address, c.RemotePeer()),
		"relayed": notRelayed == nil,
	})
}

func emitIdentified(e event.EvtPeerIdentificationCompleted) {
	observed := ""
	if e.ObservedAddr != nil {
		observed = e.ObservedAddr.String()
	}
	emit(map[string]any{
		"event":     "identified",
		"peer":      e.Peer.String(),
		"agent":     e.AgentVersion,
		"protocols": e.Protocols,
		"observed":  observed,
	})
}

// full is the address with the peer's id at its end.
func full(address ma.Multiaddr, id peer.ID) string {
	suffix := "/p2p/" + id.String()
	return strings.TrimSuffix(address.String(), suffix) + suffix
}

var output sync.Mutex

func emit(line map[string]any) {
	output.Lock()
	defer output.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(line)
}
