// Package double is the vCenter side of the lab: govmomi's simulator for the
// inventory, sessions, tasks and the wire, and in it our own answers for
// first-class disks, which the simulator only pretends to have.
//
// [Double] holds them together. The three services that show disks (vim25's
// VStorageObjectManager, VSLM's, and CNS) are views of one [store.Store]; none
// keeps a list of its own. What arrives over HTTP is not this package's: see
// package gate.
//
//	disks, err := store.Open(dir)
//	vcenter, err := double.New(disks, new(rules.Set), double.Login{User: "u", Password: "p"})
//	http.Handle("/", vcenter.Handler())
package double

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// APIVersion is the vSphere release that the double says it is.
const APIVersion = "8.0.3.0"

// Login is the one account that the double knows.
type Login struct {
	User     string
	Password string
}

// Double is a running simulator with disks that have content.
type Double struct {
	Disks *store.Store
	Rules *rules.Set

	model   *simulator.Model
	service *simulator.Service
	catalog sync.Mutex // guards the simulator's own catalog, which mirrors the store
	lacks   lacks

	lastTask  atomic.Int64
	taskDisks sync.Map // task id → the ids of the disks it is about
}

// New makes the inventory and puts the store's disks into it.
func New(disks *store.Store, wrong *rules.Set, login Login) (*Double, error) {
	model := simulator.VPX()
	model.Host, model.ClusterHost, model.Machine, model.Datastore = 0, 2, 2, 2
	model.ServiceContent.About.ApiVersion = APIVersion
	model.ServiceContent.About.Version = "8.0.3"
	if err := model.Create(); err != nil {
		return nil, fmt.Errorf("make the inventory: %w", err)
	}
	d := &Double{Disks: disks, Rules: wrong, model: model, service: model.Service}
	// Task ids must not come again after a restart: a client that asks for an
	// old one has to hear that it is gone, not how another's task went.
	d.lastTask.Store(time.Now().UnixMilli())
	d.start(login)
	nameMachines(model.Map())
	for _, disk := range disks.Disks() {
		d.mirror(disk.ID)
	}
	disks.OnChange(d.mirror)
	return d, nil
}

func (d *Double) start(login Login) {
	d.service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(login.User, login.Password)}
	// The simulator insists on a listener of its own. It is closed at once: ours is behind the gate.
	d.service.NewServer().Close()
	// Its own comparison is skipped when the account happens to be the simulator's default one.
	d.service.Listen.User = url.UserPassword(login.User, login.Password)
	d.sessions().ValidLogin = func(request *types.Login) bool {
		user := subtle.ConstantTimeCompare([]byte(request.UserName), []byte(login.User))
		password := subtle.ConstantTimeCompare([]byte(request.Password), []byte(login.Password))
		return user&password == 1
	}
	d.serveVSLM()
	d.serveCNS()
	d.serveVim25()
	d.serveAuthorization()
}

// nameMachines calls the simulated virtual machines as the lab's nodes, and
// puts each on a host of its own, where the simulator throws dice.
func nameMachines(registry *simulator.Registry) {
	machines := registry.All("VirtualMachine")
	slices.SortFunc(machines, func(a, b mo.Entity) int {
		return strings.Compare(a.Reference().Value, b.Reference().Value)
	})
	hosts := hostsOf(registry)
	for i, machine := range machines {
		vm := machine.(*simulator.VirtualMachine)
		on := hosts[i%len(hosts)].Self
		vm.Runtime.Host, vm.Summary.Runtime.Host = &on, &on
		vm.Name = fmt.Sprintf("node-%c", 'a'+i)
		vm.Config.Name, vm.Summary.Config.Name = vm.Name, vm.Name
	}
}

// Handler serves SOAP. It trusts whoever calls it with the session's cookie.
func (d *Double) Handler() http.Handler { return d.service.ServeMux }

func (d *Double) sessions() *simulator.SessionManager { return d.model.Map().SessionManager() }

// EndSession makes a session unknown.
func (d *Double) EndSession(key string) {
	d.sessions().TerminateSession(d.inside(), &types.TerminateSession{SessionId: []string{key}})
}

// Close removes the simulator's scratch folder. The store stays.
func (d *Double) Close() { d.model.Remove() }

// TaskDisks are the ids of the disks that a task is about.
func (d *Double) TaskDisks(task string) []string {
	disks, ok := d.taskDisks.Load(task)
	if !ok {
		return nil
	}
	return disks.([]string)
}

// unlocked opts an object out of the simulator's lock around each call: the
// store has locks of its own, and one slow disk must not stop the others.
type unlocked struct{}

func (unlocked) Lock()   {}
func (unlocked) Unlock() {}
