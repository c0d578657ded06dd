package tests

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	cnstypes "github.com/vmware/govmomi/cns/types"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vslm"
)

func waitForTask(ctx context.Context, c *vim25.Client, task types.ManagedObjectReference) (*types.TaskInfo, error) {
	return object.NewTask(c, task).WaitForResult(ctx, nil)
}

func TestSnapshotKeepsWhatTheDiskHeldWhenItWasTaken(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 64)

	live := lab.disk(disk)
	if live.CapacityBytes != 64*mib {
		t.Fatalf("the disk has %d bytes", live.CapacityBytes)
	}
	lab.write(live.Path, 5*mib, 'a', 8192)
	snapshot := c.snapshot(disk, "before")
	lab.write(live.Path, 5*mib, 'b', 8192)
	lab.write(live.Path, 40*mib, 'c', 512)

	taken := lab.disk(disk).Snapshots
	if len(taken) != 1 || taken[0].ID != snapshot || taken[0].Description != "before" {
		t.Fatalf("the snapshots are %+v", taken)
	}
	if !lab.holds(taken[0].Path, 5*mib, 'a', 8192) || !lab.holds(taken[0].Path, 40*mib, 0, 512) {
		t.Error("the snapshot shows what was written after it")
	}
	if !lab.holds(live.Path, 5*mib, 'b', 8192) {
		t.Error("the disk lost what was written after the snapshot")
	}
}

func TestSnapshotOfAnEmptyDiskCostsNoSpace(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-large", 100*1024)
	lab.write(lab.disk(disk).Path, 77_000*mib, 'x', 4096)
	c.snapshot(disk, "")
	taken := lab.disk(disk).Snapshots[0]
	info, err := os.Stat(taken.Path)
	must(t, err)
	if info.Size() != 100*1024*mib {
		t.Errorf("the snapshot has %d bytes", info.Size())
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > mib {
		t.Errorf("the snapshot uses %d bytes", used)
	}
	if !lab.holds(taken.Path, 77_000*mib, 'x', 4096) {
		t.Error("the snapshot lost the disk's only data")
	}
}

// The three services must show one list, whichever of them took a snapshot.
func TestSnapshotListIsTheSameForEveryService(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 16)
	byVSLM := c.snapshot(disk, "by VSLM & <friends>\n")

	task, err := c.cns.CreateSnapshots(background(t), []cnstypes.CnsSnapshotCreateSpec{{
		VolumeId: cnstypes.CnsVolumeId{Id: disk}, Description: "by CNS",
	}})
	must(t, err)
	byCNS := c.result(task.Reference()).(*cnstypes.CnsSnapshotCreateResult).Snapshot.SnapshotId.Id

	datastore := c.datastoreOf(disk)
	vim := vslm.NewObjectManager(c.Client)
	vimTask, err := vim.CreateSnapshot(background(t), datastore, disk, "by vim25")
	must(t, err)
	info, err := vimTask.WaitForResult(background(t), nil)
	must(t, err)
	byVim := info.Result.(types.ID).Id

	want := []string{byVSLM, byCNS, byVim}
	for name, got := range map[string][]string{"VSLM": c.vslmList(disk), "vim25": c.vimList(datastore, disk), "CNS": c.cnsList(disk)} {
		if !slices.Equal(got, want) {
			t.Errorf("%s lists %v, but there are %v", name, got, want)
		}
	}

	c.deleteSnapshot(disk, byCNS)
	deleted, err := c.cns.DeleteSnapshots(background(t), []cnstypes.CnsSnapshotDeleteSpec{{
		VolumeId: cnstypes.CnsVolumeId{Id: disk}, SnapshotId: cnstypes.CnsSnapshotId{Id: byVSLM},
	}})
	must(t, err)
	c.result(deleted.Reference())
	for name, got := range map[string][]string{"VSLM": c.vslmList(disk), "vim25": c.vimList(datastore, disk), "CNS": c.cnsList(disk)} {
		if !slices.Equal(got, []string{byVim}) {
			t.Errorf("%s lists %v after two of three were deleted", name, got)
		}
	}
	if files := entries(t, filepath.Join(lab.store, disk, "snapshots")); !slices.Equal(files, []string{byVim + ".raw"}) {
		t.Errorf("these files are left: %v", files)
	}
}

func TestRestartKeepsDisksAndForgetsTasks(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	lab := start(t, folder)
	c := lab.login()
	disk := c.volume("pvc-shop", 16)
	lab.write(lab.disk(disk).Path, 0, 'z', 1024)
	snapshot := c.snapshot(disk, "kept")
	before, err := c.vslm.Retrieve(background(t), types.ID{Id: disk})
	must(t, err)
	task, err := c.vslm.CreateSnapshot(background(t), types.ID{Id: disk}, "second")
	must(t, err)
	_, err = task.Wait(background(t), time.Minute)
	must(t, err)
	lab.stop()

	lab = start(t, folder)
	c = lab.login()
	after, err := c.vslm.Retrieve(background(t), types.ID{Id: disk})
	must(t, err)
	if after.Config.Name != before.Config.Name || !after.Config.CreateTime.Equal(before.Config.CreateTime) ||
		backing(after).Datastore != backing(before).Datastore || backing(after).FilePath != backing(before).FilePath {
		t.Errorf("the disk came back as %+v, it was %+v", after.Config, before.Config)
	}
	if list := c.vslmList(disk); len(list) != 2 || list[0] != snapshot {
		t.Errorf("the snapshots came back as %v", list)
	}
	if !lab.holds(lab.disk(disk).Path, 0, 'z', 1024) {
		t.Error("the content is gone")
	}
	volumes, err := c.cns.QueryVolume(background(t), &cnstypes.CnsQueryFilter{VolumeIds: []cnstypes.CnsVolumeId{{Id: disk}}})
	must(t, err)
	if len(volumes.Volumes) != 1 || volumes.Volumes[0].Name != "pvc-shop" || len(volumes.Volumes[0].Metadata.EntityMetadata) != 1 {
		t.Errorf("the storage service knows %+v", volumes.Volumes)
	}
	if _, ok := vslmFault(t, c, task.ManagedObjectReference).(types.ManagedObjectNotFound); !ok {
		t.Error("a task of the time before is still there")
	}
}

func TestServerRefusesWhatARealOneRefuses(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 1)
	id := types.ID{Id: disk}

	var last string
	for range 32 {
		last = c.snapshot(disk, "one of many")
	}
	full, err := c.vslm.CreateSnapshot(background(t), id, "one too many")
	must(t, err)
	if _, ok := taskFault(t, full).(types.InvalidState); !ok {
		t.Error("a disk took its 33rd snapshot")
	}
	remove := func() *vslm.Task {
		task, err := c.vslm.Delete(background(t), id)
		must(t, err)
		return task
	}
	if _, ok := taskFault(t, remove()).(types.InvalidState); !ok {
		t.Error("a disk with snapshots was deleted")
	}
	if fault := c.deleteVolume(disk); !isFault[types.InvalidState](fault) {
		t.Errorf("a volume with snapshots was deleted: %+v", fault)
	}
	extended, err := c.vslm.ExtendDisk(background(t), id, 2)
	must(t, err)
	if _, ok := taskFault(t, extended).(types.InvalidState); !ok {
		t.Error("a disk with snapshots grew")
	}
	for _, snapshot := range c.vslmList(disk) {
		c.deleteSnapshot(disk, snapshot)
	}
	again, err := c.vslm.DeleteSnapshot(background(t), id, types.ID{Id: last})
	must(t, err)
	if _, ok := taskFault(t, again).(types.NotFound); !ok {
		t.Error("deleting an unknown snapshot did not say NotFound")
	}
	lab.tell("POST", "/attach", map[string]string{"disk": disk, "vm": "node-a"}, nil)
	attached, err := c.vslm.Retrieve(background(t), id)
	must(t, err)
	if len(attached.Config.ConsumerId) != 1 {
		t.Error("an attached disk has no consumer")
	}
	if _, ok := taskFault(t, remove()).(types.InvalidState); !ok {
		t.Error("an attached disk was deleted")
	}
	lab.tell("POST", "/detach", map[string]string{"disk": disk}, nil)
	if fault := c.deleteVolume(disk); fault != nil {
		t.Errorf("the volume could not be deleted: %+v", fault)
	}
	if _, err := c.vslm.Retrieve(background(t), id); !isSOAPFault[types.NotFound](err) {
		t.Errorf("an unknown disk says %v", err)
	}
	if left := entries(t, lab.store); len(left) != 0 {
		t.Errorf("these files are left: %v", left)
	}
}

func TestExtendedDiskHasALargerFile(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 8)
	lab.write(lab.disk(disk).Path, 8*mib-512, 'e', 512)
	task, err := c.vslm.ExtendDisk(background(t), types.ID{Id: disk}, 24)
	must(t, err)
	_, err = task.Wait(background(t), time.Minute)
	must(t, err)
	grown := lab.disk(disk)
	if grown.CapacityBytes != 24*mib || !lab.holds(grown.Path, 8*mib-512, 'e', 512) || !lab.holds(grown.Path, 24*mib-512, 0, 512) {
		t.Errorf("the disk is %+v", grown)
	}
}

func TestChangeIDsComeOnlyWithTracking(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 8)
	details := func(snapshot string) string {
		found, err := c.vslm.RetrieveSnapshotDetails(background(t), types.ID{Id: disk}, types.ID{Id: snapshot})
		must(t, err)
		return found.ChangedBlockTrackingId
	}
	if id := details(c.snapshot(disk, "untracked")); id != "" {
		t.Errorf("a disk without tracking gave change id %q", id)
	}
	flags := []string{string(types.VslmVStorageObjectControlFlagEnableChangedBlockTracking)}
	must(t, c.vslm.SetControlFlags(background(t), types.ID{Id: disk}, flags))
	first, second := details(c.snapshot(disk, "first")), details(c.snapshot(disk, "second"))
	if !changeID.MatchString(first) || !changeID.MatchString(second) || first == second {
		t.Errorf("the change ids are %q and %q", first, second)
	}
	must(t, c.vslm.ClearControlFlags(background(t), types.ID{Id: disk}))
	if id := details(c.snapshot(disk, "untracked again")); id != "" {
		t.Errorf("a disk without tracking gave change id %q", id)
	}
}

func TestDiskFromSnapshotHoldsTheSnapshotsContent(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.volume("pvc-shop", 8)
	lab.write(lab.disk(disk).Path, mib, 'o', 4096)
	snapshot := c.snapshot(disk, "old")
	lab.write(lab.disk(disk).Path, mib, 'n', 4096)
	task, err := c.vslm.CreateDiskFromSnapshot(background(t), types.ID{Id: disk}, types.ID{Id: snapshot}, "copy", nil, nil, "")
	must(t, err)
	made, err := task.Wait(background(t), time.Minute)
	must(t, err)
	copied := made.(types.VStorageObject).Config.Id.Id
	if !lab.holds(lab.disk(copied).Path, mib, 'o', 4096) {
		t.Error("the new disk does not hold what the snapshot holds")
	}
}

func (c *client) datastoreOf(disk string) *object.Datastore {
	found, err := c.vslm.Retrieve(background(c.lab.t), types.ID{Id: disk})
	must(c.lab.t, err)
	return object.NewDatastore(c.Client, backing(found).Datastore)
}

func backing(disk *types.VStorageObject) *types.BaseConfigInfoDiskFileBackingInfo {
	return disk.Config.Backing.(*types.BaseConfigInfoDiskFileBackingInfo)
}

func (c *client) vslmList(disk string) []string {
	list, err := c.vslm.RetrieveSnapshotInfo(background(c.lab.t), types.ID{Id: disk})
	must(c.lab.t, err)
	var ids []string
	for _, snapshot := range list {
		ids = append(ids, snapshot.Id.Id)
	}
	return ids
}

func (c *client) vimList(datastore *object.Datastore, disk string) []string {
	response, err := methods.RetrieveSnapshotInfo(background(c.lab.t), c.Client, &types.RetrieveSnapshotInfo{
		This: *c.ServiceContent.VStorageObjectManager, Id: types.ID{Id: disk}, Datastore: datastore.Reference(),
	})
	must(c.lab.t, err)
	var ids []string
	for _, snapshot := range response.Returnval.Snapshots {
		ids = append(ids, snapshot.Id.Id)
	}
	return ids
}

func (c *client) cnsList(disk string) []string {
	task, err := c.cns.QuerySnapshots(background(c.lab.t), cnstypes.CnsSnapshotQueryFilter{
		SnapshotQuerySpecs: []cnstypes.CnsSnapshotQuerySpec{{VolumeId: cnstypes.CnsVolumeId{Id: disk}}},
	})
	must(c.lab.t, err)
	info, err := waitForTask(background(c.lab.t), c.Client, task.Reference())
	must(c.lab.t, err)
	var ids []string
	for _, entry := range info.Result.(cnstypes.CnsSnapshotQueryResult).Entries {
		ids = append(ids, entry.Snapshot.SnapshotId.Id)
	}
	return ids
}

func (c *client) deleteSnapshot(disk, snapshot string) {
	c.lab.t.Helper()
	task, err := c.vslm.DeleteSnapshot(background(c.lab.t), types.ID{Id: disk}, types.ID{Id: snapshot})
	must(c.lab.t, err)
	_, err = task.Wait(background(c.lab.t), time.Minute)
	must(c.lab.t, err)
}

func (c *client) deleteVolume(disk string) *types.LocalizedMethodFault {
	c.lab.t.Helper()
	task, err := c.cns.DeleteVolume(background(c.lab.t), []cnstypes.CnsVolumeId{{Id: disk}}, true)
	must(c.lab.t, err)
	return c.outcome(task.Reference()).GetCnsVolumeOperationResult().Fault
}

func entries(t *testing.T, folder string) []string {
	t.Helper()
	found, err := os.ReadDir(folder)
	must(t, err)
	var names []string
	for _, entry := range found {
		names = append(names, entry.Name())
	}
	return names
}
