package main

import (
	"context"
	"time"

	rendezvous "github.com/berty/go-libp2p-rendezvous"
	rendezvousdb "github.com/berty/go-libp2p-rendezvous/db/sqlite"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// watchPause is the time between two questions of a watching discoverer.
const watchPause = 500 * time.Millisecond

// servePoint runs a rendezvous point that keeps its registrations in memory.
func servePoint(h host.Host) error {
	db, err := rendezvousdb.OpenDB(context.Background(), ":memory:")
	if err != nil {
		return err
	}
	defer db.Close()
	rendezvous.NewRendezvousService(h, db)
	return untilTerminated()
}

// point connects to the rendezvous point of the command line.
func point(ctx context.Context, h host.Host, opts *options) (rendezvous.RendezvousPoint, error) {
	at, err := peer.AddrInfoFromString(opts.point)
	if err != nil {
		return nil, err
	}
	if err := h.Connect(ctx, *at); err != nil {
		return nil, err
	}
	return rendezvous.NewRendezvousPoint(h, at.ID), nil
}

// register registers once; with keep the host then stays.
func register(ctx context.Context, h host.Host, opts *options) error {
	at, err := point(ctx, h, opts)
	if err != nil {
		return err
	}
	ttl, err := at.Register(ctx, opts.namespace, opts.ttl)
	if err != nil {
		return err
	}
	emit(map[string]any{"event": "registered", "namespace": opts.namespace, "ttl": int64(ttl.Seconds())})
	if opts.keep {
		return untilTerminated()
	}
	return nil
}

// discover asks until there is no more; with watch it goes on asking for what is new.
func discover(ctx context.Context, h host.Host, opts *options) error {
	at, err := point(ctx, h, opts)
	if err != nil {
		return err
	}
	var cookie []byte
	for {
		found, next, err := at.Discover(ctx, opts.namespace, opts.limit, cookie)
		if err != nil {
			return err
		}
		for _, registration := range found {
			emitFound(registration)
		}
		emit(map[string]any{"event": "page", "peers": len(found)})
		cookie = next
		if len(found) > 0 && len(cookie) > 0 {
			continue
		}
		if !opts.watch {
			return nil
		}
		time.Sleep(watchPause)
	}
}

func emitFound(registration rendezvous.Registration) {
	addresses := []string{}
	for _, address := range registration.Peer.Addrs {
		addresses = append(addresses, full(address, registration.Peer.ID))
	}
	emit(map[string]any{
		"event":     "peer",
		"peer":      registration.Peer.ID.String(),
		"addresses": addresses,
		"ttl":       registration.Ttl,
	})
}
