package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

const (
	echoProtocol = "/echo/1.0.0"
	perfProtocol = "/perf/1.0.0"
	// pingPause lets a stream end on the far side first: go-libp2p resets pings beyond a few streams at once.
	pingPause = 100 * time.Millisecond
)

// dial connects to the target and does what the command asks.
func dial(ctx context.Context, h host.Host, opts *options) error {
	target, err := peer.AddrInfoFromString(opts.target)
	if err != nil {
		return err
	}
	identified, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.BufSize(64))
	if err != nil {
		return err
	}
	h.Peerstore().AddAddrs(target.ID, target.Addrs, peerstore.TempAddrTTL)
	if err := h.Connect(ctx, *target); err != nil {
		return err
	}
	switch opts.command {
	case "ping":
		for range opts.count {
			if err := pingOnce(ctx, h, target.ID); err != nil {
				return err
			}
			time.Sleep(pingPause)
		}
		return nil
	case "echo":
		return echo(ctx, h, target.ID, opts.bytes)
	default:
		return awaitIdentified(ctx, identified, target.ID)
	}
}

// pingOnce sends one ping on a stream of its own: rust-libp2p leaves the second one on a stream waiting.
func pingOnce(ctx context.Context, h host.Host, target peer.ID) error {
	s, err := h.NewStream(ctx, target, ping.ID)
	if err != nil {
		return err
	}
	defer s.Close()
	abort := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer abort()

	sent, answer := make([]byte, ping.PingSize), make([]byte, ping.PingSize)
	_, _ = rand.Read(sent)
	start := time.Now()
	if _, err := s.Write(sent); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, answer); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if !bytes.Equal(sent, answer) {
		return errors.New("the pong differs from the ping")
	}
	emit(map[string]any{"event": "ping", "peer": target.String(), "rtt_us": time.Since(start).Microseconds()})
	return nil
}

// echo sends pseudo-random bytes and wants exactly these back, then the end of the stream.
func echo(ctx context.Context, h host.Host, target peer.ID, count int64) error {
	s, err := h.NewStream(ctx, target, echoProtocol)
	if err != nil {
		return err
	}
	abort := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer abort()

	var seed [32]byte
	_, _ = rand.Read(seed[:])
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(s, io.LimitReader(mrand.NewChaCha8(seed), count))
		sent <- errors.Join(err, s.CloseWrite())
	}()
	received, ok, err := compare(s, io.LimitReader(mrand.NewChaCha8(seed), count))
	if err != nil {
		_ = s.Reset()
		return fmt.Errorf("echo after %d bytes: %w", received, err)
	}
	if !ok || received != count {
		return fmt.Errorf("the echo differs from what was sent (%d of %d bytes)", received, count)
	}
	if err := <-sent; err != nil {
		return err
	}
	emit(map[string]any{"event": "echo", "bytes": received, "ok": true})
	return s.Close()
}

// compare reads got to its end and tells how much came and whether it is what want holds.
func compare(got, want io.Reader) (received int64, equal bool, err error) {
	equal = true
	chunk, expected := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := got.Read(chunk)
		m, _ := io.ReadFull(want, expected[:n])
		equal = equal && bytes.Equal(chunk[:n], expected[:m])
		received += int64(n)
		if err == io.EOF {
			return received, equal, nil
		}
		if err != nil {
			return received, equal, err
		}
	}
}

func awaitIdentified(ctx context.Context, identified event.Subscription, target peer.ID) error {
	for {
		select {
		case e := <-identified.Out():
			if e.(event.EvtPeerIdentificationCompleted).Peer == target {
				return nil
			}
		case <-ctx.Done():
			return errors.New("the peer did not identify itself in time")
		}
	}
}

func serveEcho(h host.Host) {
	h.SetStreamHandler(echoProtocol, func(s network.Stream) {
		if _, err := io.Copy(s, s); err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
}

// servePerf reads a download size and an upload to its end, then sends that many bytes (libp2p specs, perf).
func servePerf(h host.Host) {
	h.SetStreamHandler(perfProtocol, func(s network.Stream) {
		if err := answerPerf(s); err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
}

func answerPerf(s network.Stream) error {
	var size [8]byte
	if _, err := io.ReadFull(s, size[:]); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s); err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for left := binary.BigEndian.Uint64(size[:]); left > 0; {
		n, err := s.Write(zeros[:min(left, uint64(len(zeros)))])
		if err != nil {
			return err
		}
		left -= uint64(n)
	}
	return nil
}
