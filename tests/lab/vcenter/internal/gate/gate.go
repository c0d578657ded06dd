// Package gate stands between the network and the simulator. It decodes each
// call once, and with that: refuses what a real server refuses and the
// simulator lets pass, keeps the sessions, counts the calls, and carries out
// what the rules say of a call ([rules.Call]).
//
// It must not know what a call does: that is package double's.
package gate

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/vmware/govmomi/cns"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vslm"

	"lab.velero-plugin-for-vsphere/vcenter/internal/double"
	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
)

// Gate serves the vCenter side over HTTP.
type Gate struct {
	Sessions *Sessions
	Calls    *Calls

	vcenter *double.Double
	next    http.Handler
}

// New puts a gate in front of a vCenter double.
func New(vcenter *double.Double) *Gate {
	return &Gate{Sessions: newSessions(vcenter.EndSession), Calls: new(Calls), vcenter: vcenter, next: vcenter.Handler()}
}

// endpoint is where a service is, and the namespace that its methods are in.
var endpoints = map[string]string{
	vim25.Path:                 vim25.Namespace,
	vim25.Path + "/vimService": vim25.Namespace,
	vslm.Path:                  vslm.Namespace,
	cns.Path:                   cns.Namespace,
}

// call is one SOAP call on its way through.
type call struct {
	namespace string
	method    *simulator.Method
	disks     []string
	session   string // the key that was presented and is known
}

func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer survive(w, r)
	namespace, ok := endpoints[r.URL.Path]
	switch {
	case ok && r.Method == http.MethodPost:
		g.soap(w, r, namespace)
	case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "ServiceVersions.xml"):
		g.next.ServeHTTP(w, r)
	case ok:
		http.Error(w, "only POST is allowed", http.StatusMethodNotAllowed)
	default:
		http.NotFound(w, r) // the simulator would show any file of a datastore to anybody
	}
}

// survive turns a panic of the simulator into an answer. Connections that are
// cut on purpose are no panic of that kind.
func survive(w http.ResponseWriter, r *http.Request) {
	reason := recover()
	if reason == nil {
		return
	}
	if reason == http.ErrAbortHandler {
		panic(reason)
	}
	log.Printf("%s panicked: %v\n%s", r.URL.Path, reason, debug.Stack())
	writeFault(w, vim25.Namespace, "the simulator panicked", new(types.SystemError))
}

func (g *Gate) soap(w http.ResponseWriter, r *http.Request, namespace string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	method, err := decode(namespace, body)
	if err != nil {
		writeFault(w, namespace, err.Error(), new(types.InvalidRequest))
		return
	}
	c := &call{namespace: namespace, method: method, disks: g.disksOf(method)}
	c.session = g.Sessions.present(r, c)
	if fault := c.refusal(r, body); fault != nil {
		writeFault(w, namespace, fault.message, fault.fault)
		return
	}
	g.Calls.count(method.Name, c.disks)
	r.Body = io.NopCloser(bytes.NewReader(body))
	g.pass(w, r, c)
}

// pass lets a call through, as far as the rules allow.
func (g *Gate) pass(w http.ResponseWriter, r *http.Request, c *call) {
	rule := g.vcenter.Rules.Take(rules.Call, c.method.Name, c.disks)
	if rule == nil {
		g.operate(r, c).copyTo(w)
		return
	}
	time.Sleep(rule.Delay()) // the latency that was asked for
	answer := newAnswer()
	if rule.Operates() {
		answer = g.operate(r, c)
	}
	switch {
	case rule.LostReply:
		panic(http.ErrAbortHandler) // cuts the connection without a word
	case rule.HTTPStatus != 0:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(rule.HTTPStatus)
		_, _ = io.WriteString(w, "<html><body>"+http.StatusText(rule.HTTPStatus)+"</body></html>")
	case rule.Fault != "":
		fault, err := double.FaultFor(rule)
		if err != nil {
			fault = &types.SystemError{Reason: err.Error()}
		}
		writeFault(w, c.namespace, rule.Message, fault)
	default:
		answer.copyTo(w)
	}
}

// operate has the simulator answer, and follows what that means for sessions.
func (g *Gate) operate(r *http.Request, c *call) *answer {
	answer := newAnswer()
	g.next.ServeHTTP(answer, r)
	g.Sessions.follow(r, c, answer)
	return answer
}

// decode reads a request with the simulator's own eyes.
func decode(namespace string, body []byte) (method *simulator.Method, err error) {
	lookup := types.TypeFunc()
	inNamespace := func(name string) (reflect.Type, bool) {
		if _, local, prefixed := strings.Cut(name, ":"); prefixed {
			name = local
		}
		if kind, ok := lookup(namespace + ":" + name); ok {
			return kind, true
		}
		return lookup(name)
	}
	defer func() {
		if reason := recover(); reason != nil {
			method, err = nil, errNoMethod
		}
	}()
	return simulator.UnmarshalBody(inNamespace, body)
}
