// plugin-host starts a plugin of Velero as a Velero server does, on the real go-plugin library, and tells what it saw as
// one JSON object on stdout. What Velero's generated code would encode is encoded here by hand, so that the plugin's own
// reading of the contract is not the judge of itself.
//
//	plugin-host [-rehearse | -follow | -call METHOD [-field TEXT]…] PLUGIN [ARGUMENT…]
//
// -rehearse calls the actions of the tests, -follow asks after the operation that an earlier process began, -call calls any
// method with these fields.
//
// The same source is built against go-plugin 1.4.3, 1.6.0 and 1.7.0: the versions in Velero 1.13, 1.14 to 1.18.1, and later.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// report is everything that the tests look at.
type report struct {
	StartMillis    int64            `json:"startMillis"`    // until the first answer
	ResidentKiB    int64            `json:"residentKiB"`    // after the listing
	PeakKiB        int64            `json:"peakKiB"`        // at the end
	Plugins        []identifier     `json:"plugins"`        // in the plugin's order
	Calls          map[string]*call `json:"calls"`          // by name, or by method
	Children       int              `json:"children"`       // processes below the plugin, before its end
	ShutdownMillis int64            `json:"shutdownMillis"` // of Kill, which waits for the end of stderr
	ExitCode       int              `json:"exitCode"`
	Log            []map[string]any `json:"log"` // what go-plugin made of stderr, and what it says itself
}

// lines collects the log; go-plugin writes from several goroutines.
type lines struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(line)
}

// bare is a plugin whose client is the connection itself.
type bare struct {
	plugin.NetRPCUnsupportedPlugin
}

func (bare) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return fmt.Errorf("this is a host") }

func (bare) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, connection *grpc.ClientConn) (any, error) {
	return connection, nil
}

// texts is a flag that may be given several times.
type texts []string

func (t *texts) String() string { return fmt.Sprint(*t) }

func (t *texts) Set(text string) error {
	*t = append(*t, text)
	return nil
}

func main() {
	rehearsal := flag.Bool("rehearse", false, "call the actions of the tests")
	following := flag.Bool("follow", false, "ask after an operation that an earlier process began")
	method := flag.String("call", "", "call this `METHOD`")
	var question texts
	flag.Var(&question, "field", "a `TEXT` of the question, in order")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	work := func(connection *grpc.ClientConn, calls map[string]*call) {
		switch {
		case *rehearsal:
			rehearse(connection, calls)
		case *following:
			follow(connection, calls)
		case *method != "":
			calls[*method] = try(connection, *method, question...)
		}
	}
	seen, err := host(work, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "plugin-host:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(seen); err != nil {
		os.Exit(1)
	}
}

// host runs one plugin from start to end.
func host(work func(*grpc.ClientConn, map[string]*call), words []string) (*report, error) {
	log := &lines{}
	command := exec.Command(words[0], words[1:]...)
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: 2, MagicCookieKey: "VELERO_PLUGIN", MagicCookieValue: "hello"},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Plugins:          map[string]plugin.Plugin{"PluginLister": bare{}},
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, JSONFormat: true, Output: log}),
		Cmd:              command,
	})
	defer client.Kill()

	seen := &report{Calls: map[string]*call{}}
	began := time.Now()
	connection, err := connect(client)
	if err != nil {
		return nil, fmt.Errorf("start the plugin: %w; it said %s", err, log.text.String())
	}
	if seen.Plugins, err = list(connection); err != nil {
		return nil, fmt.Errorf("list the plugins: %w", err)
	}
	seen.StartMillis = time.Since(began).Milliseconds()
	pid := command.Process.Pid
	seen.ResidentKiB = memory(pid, "VmRSS")
	work(connection, seen.Calls)
	seen.PeakKiB = memory(pid, "VmHWM")
	seen.Children = children(pid)

	began = time.Now()
	client.Kill()
	seen.ShutdownMillis = time.Since(began).Milliseconds()
	seen.ExitCode = command.ProcessState.ExitCode()
	return seen, read(log, seen)
}

func connect(client *plugin.Client) (*grpc.ClientConn, error) {
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	dispensed, err := protocol.Dispense("PluginLister")
	if err != nil {
		return nil, err
	}
	return dispensed.(*grpc.ClientConn), nil
}

func read(log *lines, into *report) error {
	log.mutex.Lock()
	defer log.mutex.Unlock()
	for decoder := json.NewDecoder(&log.text); decoder.More(); {
		entry := map[string]any{}
		if err := decoder.Decode(&entry); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		into.Log = append(into.Log, entry)
	}
	return nil
}
