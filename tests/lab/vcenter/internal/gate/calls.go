package gate

import (
	"maps"
	"reflect"
	"slices"
	"sync"

	cnstypes "github.com/vmware/govmomi/cns/types"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Calls counts what clients called.
type Calls struct {
	mu      sync.Mutex
	methods map[string]int
	disks   map[string]map[string]int // disk → method → count
}

func (c *Calls) count(method string, disks []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.methods == nil {
		c.methods, c.disks = map[string]int{}, map[string]map[string]int{}
	}
	c.methods[method]++
	for _, disk := range disks {
		if c.disks[disk] == nil {
			c.disks[disk] = map[string]int{}
		}
		c.disks[disk][method]++
	}
}

// Counts says how often each method was called, on one disk or (empty) at all.
func (c *Calls) Counts(disk string) map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.methods
	if disk != "" {
		counts = c.disks[disk]
	}
	if counts == nil {
		return map[string]int{}
	}
	return maps.Clone(counts)
}

// disksOf finds which disks a call is about: by the ids in its parameters, by
// the task it asks after, and, where a disk is to be made, by its name.
func (g *Gate) disksOf(method *simulator.Method) []string {
	found := &finder{tasks: g.vcenter.TaskDisks}
	found.add(g.vcenter.TaskDisks(method.This.Value))
	found.walk(reflect.ValueOf(method.Body), "")
	return found.disks
}

type finder struct {
	tasks func(task string) []string
	disks []string
}

func (f *finder) add(disks []string) {
	for _, disk := range disks {
		if disk != "" && !slices.Contains(f.disks, disk) {
			f.disks = append(f.disks, disk)
		}
	}
}

func (f *finder) walk(value reflect.Value, field string) {
	switch value.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !value.IsNil() {
			f.walk(value.Elem(), field)
		}
	case reflect.Slice:
		for i := range value.Len() {
			f.walk(value.Index(i), field)
		}
	case reflect.Struct:
		f.structure(value, field)
	}
}

func (f *finder) structure(value reflect.Value, field string) {
	switch known := value.Interface().(type) {
	case types.ID:
		if field == "Id" || field == "Ids" || field == "FcdId" {
			f.add([]string{known.Id})
		}
		return
	case cnstypes.CnsVolumeId:
		f.add([]string{known.Id})
		return
	case types.ManagedObjectReference:
		f.add(f.tasks(known.Value))
		return
	case types.VslmCreateSpec:
		f.add([]string{known.Name})
	case cnstypes.CnsVolumeCreateSpec:
		f.add([]string{known.Name})
	case cnstypes.CnsBlockBackingDetails:
		f.add([]string{known.BackingDiskId})
	}
	for i := range value.NumField() {
		if kind := value.Type().Field(i); kind.IsExported() {
			f.walk(value.Field(i), kind.Name)
		}
	}
}
