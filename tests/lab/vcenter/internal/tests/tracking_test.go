package tests

import (
	"slices"
	"strings"
	"testing"
	"time"

	cnstypes "github.com/vmware/govmomi/cns/types"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vslm"

	"lab.velero-plugin-for-vsphere/vcenter/internal/double"
)

// Whatever happens to a disk, a change id must not be good for a disk that is
// not the one any more that it was given for.
func TestChangeIDsEndWithTheDiskTheyWereGivenFor(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	cases := []struct {
		situation string
		happens   func(disk, snapshot string)
	}{
		{"tracking off and on", func(disk, _ string) {
			must(t, c.vslm.ClearControlFlags(background(t), types.ID{Id: disk}))
			must(t, c.vslm.SetControlFlags(background(t), types.ID{Id: disk}, trackingFlag))
		}},
		{"extended", func(disk, snapshot string) {
			c.deleteSnapshot(disk, snapshot)
			task, err := c.vslm.ExtendDisk(background(t), types.ID{Id: disk}, 8)
			c.finish(task, err)
		}},
		{"reverted", func(disk, snapshot string) {
			task, err := c.vslm.Revert(background(t), types.ID{Id: disk}, types.ID{Id: snapshot})
			c.finish(task, err)
		}},
		{"relocated", func(disk, _ string) {
			task, err := c.vslm.Relocate(background(t), types.ID{Id: disk}, types.VslmRelocateSpec{VslmMigrateSpec: c.otherPlace(disk)})
			c.finish(task, err)
		}},
		{"moved with its machine", func(disk, _ string) { lab.tell("POST", "/relocate", map[string]string{"disk": disk}, nil) }},
		{"its tracking file was lost", func(disk, _ string) {
			lab.tell("POST", "/tracking", map[string]any{"disk": disk, "on": true, "reset": true}, nil)
		}},
	}
	for _, test := range cases {
		disk := c.trackedVolume(test.situation, 4)
		snapshot := c.snapshot(disk, "before")
		before := c.changeIDOf(disk, snapshot)
		test.happens(disk, snapshot)
		target := c.snapshot(disk, "after")
		after := c.changeIDOf(disk, target)
		if !changeID.MatchString(after) || strings.Split(after, "/")[0] == strings.Split(before, "/")[0] {
			t.Errorf("%s: before %q, after %q", test.situation, before, after)
		}
		if _, err := c.changes(disk, target, 0, before); trackingKey(err) != "cannotGetChanges" {
			t.Errorf("%s: the old change id says %v", test.situation, err)
		}
		if _, err := c.changes(disk, target, 0, allocated); err != nil {
			t.Errorf("%s: allocated areas of the new snapshot: %v", test.situation, err)
		}
		if slices.Contains(c.vslmList(disk), snapshot) {
			if _, err := c.changes(disk, snapshot, 0, allocated); trackingKey(err) != "noEpoch" {
				t.Errorf("%s: allocated areas of the old snapshot: %v", test.situation, err)
			}
			if _, err := c.changes(disk, snapshot, 0, before); trackingKey(err) != "cannotGetChanges" {
				t.Errorf("%s: the old change id on the old snapshot: %v", test.situation, err)
			}
		}
	}
}

func TestSnapshotsAndAttachingKeepChangeIDs(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	lab.tell("POST", "/machines", map[string]any{"vm": "node-a", "tracking": true}, nil)
	disk := c.trackedVolume("pvc-shop", 4)
	first := c.snapshot(disk, "first")
	base := c.changeIDOf(disk, first)
	lab.tell("POST", "/attach", map[string]string{"disk": disk, "vm": "node-a"}, nil)
	c.deleteSnapshot(disk, first)
	c.snapshot(disk, "in between")
	lab.write(lab.disk(disk).Path, mib, 'a', grain)
	lab.tell("POST", "/detach", map[string]string{"disk": disk}, nil)
	must(t, c.vslm.SetControlFlags(background(t), types.ID{Id: disk}, trackingFlag)) // on already
	if got := c.allChanges(disk, c.snapshot(disk, "last"), base); !slices.Equal(got, []types.DiskChangeExtent{{Start: mib, Length: grain}}) {
		t.Errorf("the changed areas are %v", got)
	}
}

// Older releases did so: only where the disk lies says that something happened.
func TestQuietRelocationShowsOnlyInThePlace(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.trackedVolume("pvc-shop", 4)
	lab.write(lab.disk(disk).Path, mib, 'a', grain)
	base := c.changeIDOf(disk, c.snapshot(disk, "before"))
	before, err := c.vslm.Retrieve(background(t), types.ID{Id: disk})
	must(t, err)
	lab.tell("POST", "/relocate", map[string]any{"disk": disk, "keepChangeIds": true}, nil)
	after, err := c.vslm.Retrieve(background(t), types.ID{Id: disk})
	must(t, err)
	if backing(before).Datastore == backing(after).Datastore || backing(before).FilePath == backing(after).FilePath ||
		backing(before).BackingObjectId == backing(after).BackingObjectId || !before.Config.CreateTime.Equal(after.Config.CreateTime) {
		t.Errorf("before %+v, after %+v", before.Config, after.Config)
	}
	if got := c.allChanges(disk, c.snapshot(disk, "after"), base); len(got) != 0 {
		t.Errorf("the changed areas are %v", got)
	}
	if listed := c.vimList(c.datastoreOf(disk), disk); len(listed) != 2 {
		t.Errorf("on its new datastore it has snapshots %v", listed)
	}
	if !lab.holds(lab.disk(disk).Path, mib, 'a', grain) {
		t.Error("the content is gone")
	}
	for _, body := range []map[string]any{{"disk": disk, "datastore": backing(after).Datastore.Value}, {"disk": disk, "datastore": "nowhere"}, {"disk": "nothing"}} {
		if status, text := lab.ask("POST", "/relocate", body); status != 409 && status != 404 {
			t.Errorf("%v: %d %s", body, status, text)
		}
	}
}

func TestCopiesOfADiskDoNotTakeItsChangeIDs(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	lab.tell("POST", "/tracking", map[string]any{"on": true}, nil)
	disk := c.volume("pvc-shop", 4)
	lab.write(lab.disk(disk).Path, mib, 'a', grain)
	snapshot := c.snapshot(disk, "source")
	base := c.changeIDOf(disk, snapshot)
	made, err := c.vslm.CreateDiskFromSnapshot(background(t), types.ID{Id: disk}, types.ID{Id: snapshot}, "from snapshot", nil, nil, "")
	fromSnapshot := c.finish(made, err)
	cloned, err := c.vslm.Clone(background(t), types.ID{Id: disk}, types.VslmCloneSpec{VslmMigrateSpec: c.otherPlace(disk), Name: "clone"})
	for what, result := range map[string]any{"made from a snapshot": fromSnapshot, "cloned": c.finish(cloned, err)} {
		copied := result.(types.VStorageObject).Config.Id.Id
		if copied == disk || !lab.holds(lab.disk(copied).Path, mib, 'a', grain) {
			t.Errorf("%s: disk %s", what, copied)
		}
		if _, err := c.changes(copied, c.snapshot(copied, ""), 0, base); wording(err) != "InvalidArgument changeId" {
			t.Errorf("%s: the source's change id says %v", what, err)
		}
	}
}

func TestTrackingOfAnAttachedDiskCannotBeSwitched(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 4)
	lab.tell("POST", "/attach", map[string]string{"disk": disk, "vm": "node-a"}, nil)
	if err := c.vslm.SetControlFlags(background(t), types.ID{Id: disk}, trackingFlag); !isSOAPFault[types.InvalidState](err) {
		t.Errorf("switching on says %v", err)
	}
	if err := c.vslm.ClearControlFlags(background(t), types.ID{Id: disk}); !isSOAPFault[types.InvalidState](err) {
		t.Errorf("switching off says %v", err)
	}
	if c.tracked(disk) {
		t.Error("it was switched on")
	}
	lab.tell("POST", "/tracking", map[string]any{"disk": disk, "on": true}, nil)
	if !c.tracked(disk) {
		t.Error("the control address could not switch it on")
	}
}

// Tracking that is switched on for a disk, while one node has it off, keeps
// pods from starting there.
func TestAttachingFollowsTheMachinesTracking(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	node := c.node("node-b")
	if on := node.tracking(); on {
		t.Fatal("a machine tracks changes before it was told to")
	}
	plain, tracked := c.volume("plain", 1), c.trackedVolume("tracked", 1)
	if !isFault[types.InvalidState](c.attach(tracked, node)) {
		t.Error("a tracked disk could be attached to a machine with tracking off")
	}
	if status, _ := lab.ask("POST", "/attach", map[string]string{"disk": tracked, "vm": "node-b"}); status != 409 {
		t.Errorf("the control address says %d", status)
	}
	if fault := c.attach(plain, node); fault != nil || c.tracked(plain) {
		t.Errorf("a plain disk on a machine with tracking off: %+v", fault)
	}
	lab.tell("POST", "/detach", map[string]string{"disk": plain}, nil)

	task, err := node.Reconfigure(background(t), types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(true)})
	must(t, err)
	must(t, task.Wait(background(t)))
	if on := node.tracking(); !on {
		t.Error("the machine was told to track changes and does not")
	}
	for _, disk := range []string{plain, tracked} {
		if fault := c.attach(disk, node); fault != nil || !c.tracked(disk) {
			t.Errorf("on a machine with tracking on: %+v", fault)
		}
		lab.tell("POST", "/detach", map[string]string{"disk": disk}, nil)
		if !c.tracked(disk) {
			t.Error("detaching ended the tracking")
		}
	}

	lab.tell("POST", "/machines", map[string]any{"vm": "node-b", "tracking": false}, nil)
	if on := node.tracking(); on {
		t.Error("the property collector shows tracking that the control address switched off")
	}
	var machines []double.Machine
	lab.tell("GET", "/machines", nil, &machines)
	if len(machines) != 2 || machines[1].Name != "node-b" || machines[1].ID != node.Reference().Value || machines[1].Tracking {
		t.Errorf("the machines are %+v", machines)
	}
}

func TestNewDisksAreTrackedOnlyWhenToldSo(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	before := c.volume("before", 1)
	lab.tell("POST", "/tracking", map[string]any{"on": true}, nil)
	var shown struct{ NewDisks bool }
	lab.tell("GET", "/tracking", nil, &shown)
	after := c.volume("after", 1)
	if c.tracked(before) || !c.tracked(after) || !shown.NewDisks {
		t.Errorf("before %t, after %t, shown %t", c.tracked(before), c.tracked(after), shown.NewDisks)
	}
	seen := lab.disk(after)
	if !seen.Tracking || !strings.HasSuffix(seen.FilePath, after+".vmdk") {
		t.Errorf("the control address shows %+v", seen)
	}
	for _, wrong := range []map[string]any{{}, {"reset": true}, {"on": true, "reset": true}, {"disk": after, "enabled": true}} {
		if status, _ := lab.ask("POST", "/tracking", wrong); status != 400 {
			t.Errorf("%v: status %d", wrong, status)
		}
	}
}

func (c *client) tracked(disk string) bool {
	c.lab.t.Helper()
	found, err := c.vslm.Retrieve(background(c.lab.t), types.ID{Id: disk})
	must(c.lab.t, err)
	return *found.Config.ChangedBlockTrackingEnabled
}

// finish waits for a task that must succeed, and returns its result.
func (c *client) finish(task *vslm.Task, err error) any {
	c.lab.t.Helper()
	must(c.lab.t, err)
	result, err := task.Wait(background(c.lab.t), time.Minute)
	must(c.lab.t, err)
	return result
}

// otherPlace is a datastore that a disk is not on.
func (c *client) otherPlace(disk string) types.VslmMigrateSpec {
	c.lab.t.Helper()
	all, err := find.NewFinder(c.Client).DatastoreList(background(c.lab.t), "/DC0/datastore/*")
	must(c.lab.t, err)
	now := c.datastoreOf(disk).Reference()
	i := slices.IndexFunc(all, func(datastore *object.Datastore) bool { return datastore.Reference() != now })
	return types.VslmMigrateSpec{BackingSpec: &types.VslmCreateSpecDiskFileBackingSpec{
		VslmCreateSpecBackingSpec: types.VslmCreateSpecBackingSpec{Datastore: all[i].Reference()},
	}}
}

// node is a virtual machine of the inventory.
type node struct {
	*object.VirtualMachine
	c *client
}

func (c *client) node(name string) node {
	c.lab.t.Helper()
	found, err := find.NewFinder(c.Client).VirtualMachine(background(c.lab.t), "/DC0/vm/"+name)
	must(c.lab.t, err)
	return node{found, c}
}

func (n node) tracking() bool {
	n.c.lab.t.Helper()
	var seen mo.VirtualMachine
	collector := property.DefaultCollector(n.c.Client)
	must(n.c.lab.t, collector.RetrieveOne(background(n.c.lab.t), n.Reference(), []string{"config.changeTrackingEnabled"}, &seen))
	return seen.Config != nil && seen.Config.ChangeTrackingEnabled != nil && *seen.Config.ChangeTrackingEnabled
}

func (c *client) attach(disk string, to node) *types.LocalizedMethodFault {
	c.lab.t.Helper()
	task, err := c.cns.AttachVolume(background(c.lab.t), []cnstypes.CnsVolumeAttachDetachSpec{{
		VolumeId: cnstypes.CnsVolumeId{Id: disk}, Vm: to.Reference(),
	}})
	must(c.lab.t, err)
	return c.outcome(task.Reference()).GetCnsVolumeOperationResult().Fault
}
