package tests

import (
	"testing"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/double"
)

// A test that counts what one host serves must know where its machines run.
func TestMachinesRunWhereTheyWerePut(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	machines := func() []double.Machine {
		var all []double.Machine
		lab.tell("GET", "/machines", nil, &all)
		return all
	}
	before := machines()
	if len(before) != 2 || before[0].Host == before[1].Host {
		t.Fatalf("each machine begins on a host of its own: %+v", before)
	}
	lab.tell("POST", "/machines", map[string]any{"vm": "node-b", "host": before[0].Host}, nil)
	if after := machines(); after[1].Host != before[0].Host || after[0] != before[0] {
		t.Errorf("the machines are %+v", after)
	}
	var vm mo.VirtualMachine
	var host mo.HostSystem
	collector := property.DefaultCollector(c.Client)
	reference := types.ManagedObjectReference{Type: "VirtualMachine", Value: before[1].ID}
	must(t, collector.RetrieveOne(background(t), reference, []string{"runtime.host"}, &vm))
	must(t, collector.RetrieveOne(background(t), *vm.Runtime.Host, []string{"name"}, &host))
	if host.Name != before[0].Host {
		t.Errorf("the property collector shows it on %s", host.Name)
	}
}
