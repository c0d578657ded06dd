package double

import (
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// Machine is a virtual machine, as far as its disks care.
type Machine struct {
	Name         string `json:"name"`
	ID           string `json:"id"`           // the reference's value, as in "vm-61"
	UUID         string `json:"uuid"`         // its BIOS's
	InstanceUUID string `json:"instanceUuid"` // that which vCenter gave it
	Tracking     bool   `json:"tracking"`     // changeTrackingEnabled of its configuration
	Host         string `json:"host"`         // the name of the ESXi host it runs on
}

// Machines are the virtual machines in the order of their names.
func (d *Double) Machines() []Machine {
	var all []Machine
	for _, entity := range d.model.Map().All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		d.inside().WithLock(vm, func() {
			all = append(all, Machine{
				Name: vm.Name, ID: vm.Self.Value, UUID: vm.Config.Uuid, InstanceUUID: vm.Config.InstanceUuid,
				Tracking: isTrue(vm.Config.ChangeTrackingEnabled),
				Host:     d.model.Map().Get(*vm.Runtime.Host).(*simulator.HostSystem).Name,
			})
		})
	}
	slices.SortFunc(all, func(a, b Machine) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// machine finds a virtual machine by its name or its reference's value.
func (d *Double) machine(name string) (Machine, bool) {
	all := d.Machines()
	i := slices.IndexFunc(all, func(m Machine) bool { return m.Name == name || m.ID == name })
	if i < 0 {
		return Machine{}, false
	}
	return all[i], true
}

// TrackMachine does to a virtual machine what reconfiguring it with
// changeTrackingEnabled does.
func (d *Double) TrackMachine(name string, on bool) error {
	found, ok := d.machine(name)
	if !ok {
		return &store.Refusal{Kind: store.NotFound, Subject: "vm " + name, Why: "there is no such virtual machine"}
	}
	vm := d.model.Map().Get(types.ManagedObjectReference{Type: "VirtualMachine", Value: found.ID})
	d.model.Map().AtomicUpdate(d.inside(), vm, []types.PropertyChange{{Name: "config.changeTrackingEnabled", Val: on}})
	return nil
}

// MoveMachine does to a virtual machine what vMotion does: it runs on the ESXi
// host of that name from now on.
func (d *Double) MoveMachine(name, host string) error {
	found, ok := d.machine(name)
	if !ok {
		return &store.Refusal{Kind: store.NotFound, Subject: "vm " + name, Why: "there is no such virtual machine"}
	}
	hosts := hostsOf(d.model.Map())
	i := slices.IndexFunc(hosts, func(h *simulator.HostSystem) bool { return h.Name == host })
	if i < 0 {
		return &store.Refusal{Kind: store.NotFound, Subject: "host " + host, Why: "there is no such host"}
	}
	vm := d.model.Map().Get(types.ManagedObjectReference{Type: "VirtualMachine", Value: found.ID})
	to := hosts[i].Self
	d.model.Map().AtomicUpdate(d.inside(), vm, []types.PropertyChange{
		{Name: "runtime.host", Val: &to}, {Name: "summary.runtime.host", Val: &to},
	})
	return nil
}

// hostsOf are the ESXi hosts in the order of their names.
func hostsOf(registry *simulator.Registry) []*simulator.HostSystem {
	var hosts []*simulator.HostSystem
	for _, entity := range registry.All("HostSystem") {
		hosts = append(hosts, entity.(*simulator.HostSystem))
	}
	slices.SortFunc(hosts, func(a, b *simulator.HostSystem) int { return strings.Compare(a.Name, b.Name) })
	return hosts
}

// inside is a context for reaching into the simulator without a call.
func (d *Double) inside() *simulator.Context {
	return &simulator.Context{Map: d.model.Map(), Session: &simulator.Session{}}
}

// Attach gives a disk to a virtual machine, which can be any name; one that
// the inventory does not know tracks no changes. A machine that does switches
// tracking of the disk on, and one that does not cannot have a tracked disk.
func (d *Double) Attach(disk, machine string) error {
	vm, _ := d.machine(machine)
	return d.Disks.Change(disk, func(disk *store.Disk) error {
		switch {
		case disk.Attached != nil:
			return &store.Refusal{Kind: store.InvalidState, Subject: "disk " + disk.ID, Why: "it is attached to " + disk.Attached.VM}
		case disk.Tracking != nil && !vm.Tracking:
			return &store.Refusal{
				Kind: store.InvalidState, Subject: "disk " + disk.ID,
				Why: "its changes are tracked, and " + machine + " has changed block tracking off",
			}
		case vm.Tracking:
			disk.Track(true)
		}
		disk.Attached = &store.Attachment{Consumer: uuid.New().String(), VM: machine}
		return nil
	})
}

// Detach takes a disk from the virtual machine that has it. Its changes stay
// tracked when they were.
func (d *Double) Detach(disk string) error {
	return d.Disks.Change(disk, func(disk *store.Disk) error {
		if disk.Attached == nil {
			return &store.Refusal{Kind: store.InvalidState, Subject: "disk " + disk.ID, Why: "it is not attached"}
		}
		disk.Attached = nil
		return nil
	})
}

// TrackDisk switches changed block tracking of a disk whatever its state, as
// an attached disk's is by its machine.
func (d *Double) TrackDisk(disk string, on, reset bool) error {
	return d.Disks.Change(disk, func(disk *store.Disk) error {
		if reset {
			disk.ResetTracking()
		}
		disk.Track(on)
		return nil
	})
}
