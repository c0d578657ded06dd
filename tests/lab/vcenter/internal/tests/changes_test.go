package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
)

const (
	grain     = 64 << 10
	query     = "VslmQueryChangedDiskAreas"
	allocated = "*" // in place of a change id: all that was ever written
)

func TestChangedAreasAreExactlyWhatWasWritten(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.trackedVolume("pvc-shop", 64)
	path := lab.disk(disk).Path
	lab.write(path, 10*mib, 'a', 3*grain)
	lab.write(path, 20*mib, 'b', grain)
	lab.write(path, 30*mib, 'c', grain)
	lab.write(path, 40*mib, 'd', grain)
	base := c.changeIDOf(disk, c.snapshot(disk, "base"))

	lab.write(path, 10*mib, 'a', 3*grain)       // the same again
	lab.write(path, 20*mib+100, 'B', 1)         // one byte
	lab.write(path, 30*mib, 0, grain)           // zeroes over data
	lab.punch(path, 40*mib, grain)              // a hole where data was
	lab.write(path, 50*mib-1, 'e', 2)           // across the border of two grains
	lab.write(path, 55*mib, 0, grain)           // zeroes where nothing was
	lab.write(path, 0, 'f', 1)                  // the first byte
	lab.write(path, 64*mib-1, 'g', 1)           // the last one
	lab.write(path, 33*mib, 'h', 4*grain+1)     // several
	lab.write(path, 33*mib+6*grain, 'i', grain) // and one more, not next to them
	snapshot := c.snapshot(disk, "target")
	lab.write(path, 5*mib, 'x', grain) // after the snapshot: none of its business

	want := []types.DiskChangeExtent{
		{Start: 0, Length: grain},
		{Start: 20 * mib, Length: grain},
		{Start: 30 * mib, Length: grain},
		{Start: 33 * mib, Length: 5 * grain},
		{Start: 33*mib + 6*grain, Length: grain},
		{Start: 40 * mib, Length: grain},
		{Start: 50*mib - grain, Length: 2 * grain},
		{Start: 64*mib - grain, Length: grain},
	}
	if got := c.allChanges(disk, snapshot, base); !slices.Equal(got, want) {
		t.Errorf("the changed areas are\n%v, wanted\n%v", got, want)
	}
	inTheMiddle, err := c.changes(disk, snapshot, 33*mib+grain+512, base)
	must(t, err)
	if inTheMiddle.StartOffset != 33*mib+grain+512 || inTheMiddle.Length != 64*mib-inTheMiddle.StartOffset ||
		inTheMiddle.ChangedArea[0] != (types.DiskChangeExtent{Start: 33*mib + grain + 512, Length: 4*grain - 512}) {
		t.Errorf("from the middle of an area on: %+v", inTheMiddle)
	}
	if got := c.vimChanges(disk, snapshot, base); !slices.Equal(got, want) {
		t.Errorf("vim25 says %v", got)
	}
}

func TestNothingChangedIsAnAnswerToo(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.trackedVolume("pvc-shop", 8)
	lab.write(lab.disk(disk).Path, mib, 'a', grain)
	base := c.changeIDOf(disk, c.snapshot(disk, "base"))
	snapshot := c.snapshot(disk, "target")
	for _, since := range []string{base, c.changeIDOf(disk, snapshot)} {
		told, err := c.changes(disk, snapshot, 0, since)
		must(t, err)
		if told.StartOffset != 0 || told.Length != 8*mib || len(told.ChangedArea) != 0 {
			t.Errorf("since %s: %+v", since, told)
		}
	}
}

// The next night's backup knows a change id, of which neither the snapshot nor
// the vCenter of that day is left.
func TestChangesOutliveTheSnapshotThatGaveTheChangeID(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	lab := start(t, folder)
	c := lab.login()
	disk := c.trackedVolume("pvc-shop", 16)
	lab.write(lab.disk(disk).Path, mib, 'a', grain)
	first := c.snapshot(disk, "first night")
	base := c.changeIDOf(disk, first)
	c.deleteSnapshot(disk, first)
	lab.write(lab.disk(disk).Path, 3*mib, 'b', grain)
	lab.stop()

	lab = start(t, folder)
	c = lab.login()
	lab.write(lab.disk(disk).Path, 7*mib, 'c', grain)
	second := c.snapshot(disk, "second night")
	want := []types.DiskChangeExtent{{Start: 3 * mib, Length: grain}, {Start: 7 * mib, Length: grain}}
	if got := c.allChanges(disk, second, base); !slices.Equal(got, want) {
		t.Errorf("the changed areas are %v", got)
	}
	uuid, epoch, _ := strings.Cut(base, "/")
	if id := c.changeIDOf(disk, second); !strings.HasPrefix(id, uuid+"/") || id == uuid+"/"+epoch {
		t.Errorf("after %s came %s", base, id)
	}
}

func TestTheLast64ChangeIDsOfADiskAreGood(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	lab := start(t, folder)
	c := lab.login()
	disk := c.trackedVolume("pvc-shop", 1)
	var ids []string
	held := c.snapshot(disk, "held for long")
	for range 66 {
		snapshot := c.snapshot(disk, "")
		ids = append(ids, c.changeIDOf(disk, snapshot))
		c.deleteSnapshot(disk, snapshot)
	}
	lab.write(lab.disk(disk).Path, grain, 'a', grain)
	last := c.snapshot(disk, "last")
	if got := c.allChanges(disk, last, ids[3]); !slices.Equal(got, []types.DiskChangeExtent{{Start: grain, Length: grain}}) {
		t.Errorf("since the 64th last: %v", got)
	}
	_, err := c.changes(disk, last, 0, ids[2])
	if key := trackingKey(err); key != "cannotGetChanges" {
		t.Errorf("since the 65th last: %v", err)
	}
	if got := c.allChanges(disk, held, allocated); len(got) != 0 {
		t.Errorf("a snapshot older than all of them: %v", got)
	}
	if files := entries(t, filepath.Join(folder, disk, "changes")); len(files) != 64 {
		t.Errorf("%d files are kept", len(files))
	}
}

func TestAllocatedAreasAreWhatWasEverWritten(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.trackedVolume("pvc-shop", 32)
	path := lab.disk(disk).Path
	if got := c.allChanges(disk, c.snapshot(disk, "empty"), allocated); len(got) != 0 {
		t.Errorf("of an empty disk: %v", got)
	}
	lab.write(path, 2*mib, 'a', 2*grain)
	lab.write(path, 9*mib+5, 'b', 1)
	lab.write(path, 12*mib, 'c', grain)
	lab.punch(path, 12*mib, grain)
	want := []types.DiskChangeExtent{{Start: 2 * mib, Length: 2 * grain}, {Start: 9 * mib, Length: grain}}
	if got := c.allChanges(disk, c.snapshot(disk, "used"), allocated); !slices.Equal(got, want) {
		t.Errorf("the allocated areas are %v", got)
	}
}

func TestManyAreasComeInWindows(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.trackedVolume("pvc-shop", 320)
	path := lab.disk(disk).Path
	base := c.changeIDOf(disk, c.snapshot(disk, "base"))
	var want []types.DiskChangeExtent
	for i := range int64(2100) {
		lab.write(path, i*2*grain, 'a', 1)
		want = append(want, types.DiskChangeExtent{Start: i * 2 * grain, Length: grain})
	}
	snapshot := c.snapshot(disk, "target")

	first, err := c.changes(disk, snapshot, 0, base)
	must(t, err)
	if len(first.ChangedArea) != 2000 || first.Length != 1999*2*grain+grain {
		t.Errorf("the first window has %d areas and %d bytes", len(first.ChangedArea), first.Length)
	}
	if got := c.allChanges(disk, snapshot, base); !slices.Equal(got, want) {
		t.Errorf("all windows together have %d areas", len(got))
	}
	id := lab.fault(rules.Rule{Method: query, Disk: disk, Where: rules.Answer, Areas: 300})
	if got := c.allChanges(disk, snapshot, base); !slices.Equal(got, want) {
		t.Errorf("all small windows together have %d areas", len(got))
	}
	if hits := lab.hits(id); hits != 7 {
		t.Errorf("2100 areas came in %d windows of 300", hits)
	}
}

// A terabyte that was hardly written to must not be read from end to end.
func TestLargeDisksAreComparedByTheirData(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk := c.trackedVolume("pvc-large", 1<<20)
	path := lab.disk(disk).Path
	lab.write(path, 1000*mib, 'a', mib)
	began := time.Now()
	base := c.changeIDOf(disk, c.snapshot(disk, "base"))
	lab.write(path, 900_000*mib, 'b', mib)
	got := c.allChanges(disk, c.snapshot(disk, "target"), base)
	if !slices.Equal(got, []types.DiskChangeExtent{{Start: 900_000 * mib, Length: mib}}) {
		t.Errorf("the changed areas are %v", got)
	}
	if passed := time.Since(began); passed > 20*time.Second {
		t.Errorf("it took %s", passed)
	}
}

func TestUnusableQuestionsAreRefused(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	disk, other, untracked := c.trackedVolume("pvc-shop", 4), c.trackedVolume("other", 4), c.volume("untracked", 4)
	foreign := c.changeIDOf(other, c.snapshot(other, ""))
	first, plain := c.snapshot(disk, "first"), c.snapshot(untracked, "")
	base := c.changeIDOf(disk, first)
	second := c.snapshot(disk, "second")
	later, uuid := c.changeIDOf(disk, second), strings.Split(base, "/")[0]

	cases := []struct {
		situation, disk, snapshot, since string
		offset                           int64
		want                             string
	}{
		{"good", disk, second, base, 4*mib - 1, ""},
		{"offset at the end", disk, second, base, 4 * mib, "InvalidArgument startOffset"},
		{"negative offset", disk, second, base, -1, "InvalidArgument startOffset"},
		{"no change id", disk, second, "", 0, "InvalidArgument changeId"},
		{"malformed change id", disk, second, strings.ToUpper(base), 0, "InvalidArgument changeId"},
		{"change id of another disk", disk, second, foreign, 0, "InvalidArgument changeId"},
		{"change id of a later snapshot", disk, first, later, 0, "FileFault cannotGetChanges"},
		{"change id that never was", disk, second, uuid + "/0", 0, "FileFault cannotGetChanges"},
		{"untracked disk", untracked, plain, base, 0, "FileFault noTrack"},
		{"allocated areas of an untracked disk", untracked, plain, allocated, 0, "FileFault noTrack"},
		{"unknown snapshot", disk, "11111111-2222-3333-4444-555555555555", base, 0, "NotFound"},
		{"unknown disk", "11111111-2222-3333-4444-555555555555", second, base, 0, "NotFound"},
	}
	for _, test := range cases {
		_, err := c.changes(test.disk, test.snapshot, test.offset, test.since)
		if got := wording(err); got != test.want {
			t.Errorf("%s: %q, wanted %q", test.situation, got, test.want)
		}
	}
}

func TestLostTrackingFileIsNoSilentEmptyAnswer(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	lab := start(t, folder)
	c := lab.login()
	disk := c.trackedVolume("pvc-shop", 4)
	base := c.changeIDOf(disk, c.snapshot(disk, "base"))
	lab.write(lab.disk(disk).Path, mib, 'a', grain)
	snapshot := c.snapshot(disk, "target")
	marks := filepath.Join(folder, disk, "changes")
	for _, file := range entries(t, marks) {
		must(t, os.WriteFile(filepath.Join(marks, file), []byte("torn"), 0o644))
	}
	if _, err := c.changes(disk, snapshot, 0, base); trackingKey(err) != "cannotGetChanges" {
		t.Errorf("the query says %v", err)
	}
	if got := c.allChanges(disk, snapshot, allocated); !slices.Equal(got, []types.DiskChangeExtent{{Start: mib, Length: grain}}) {
		t.Errorf("the allocated areas are %v", got)
	}
}

// trackedVolume is a volume whose changes are tracked from the start.
func (c *client) trackedVolume(name string, capacityMiB int64) string {
	c.lab.t.Helper()
	disk := c.volume(name, capacityMiB)
	must(c.lab.t, c.vslm.SetControlFlags(background(c.lab.t), types.ID{Id: disk}, trackingFlag))
	return disk
}

var trackingFlag = []string{string(types.VslmVStorageObjectControlFlagEnableChangedBlockTracking)}

func (c *client) changeIDOf(disk, snapshot string) string {
	c.lab.t.Helper()
	found, err := c.vslm.RetrieveSnapshotDetails(background(c.lab.t), types.ID{Id: disk}, types.ID{Id: snapshot})
	must(c.lab.t, err)
	return found.ChangedBlockTrackingId
}

func (c *client) changes(disk, snapshot string, offset int64, since string) (*types.DiskChangeInfo, error) {
	return c.vslm.QueryChangedDiskAreas(background(c.lab.t), types.ID{Id: disk}, types.ID{Id: snapshot}, offset, since)
}

// allChanges asks on until the whole disk has been told of.
func (c *client) allChanges(disk, snapshot, since string) []types.DiskChangeExtent {
	c.lab.t.Helper()
	capacity := c.lab.disk(disk).CapacityBytes
	var all []types.DiskChangeExtent
	for offset := int64(0); offset < capacity; {
		told, err := c.changes(disk, snapshot, offset, since)
		must(c.lab.t, err)
		if told.StartOffset != offset || told.Length <= 0 {
			c.lab.t.Fatalf("asked from %d, it speaks of %d bytes from %d", offset, told.Length, told.StartOffset)
		}
		all = append(all, told.ChangedArea...)
		offset += told.Length
	}
	return all
}

func (c *client) vimChanges(disk, snapshot, since string) []types.DiskChangeExtent {
	c.lab.t.Helper()
	told, err := methods.VstorageObjectVCenterQueryChangedDiskAreas(background(c.lab.t), c.Client, &types.VstorageObjectVCenterQueryChangedDiskAreas{
		This: *c.ServiceContent.VStorageObjectManager, Id: types.ID{Id: disk}, Datastore: c.datastoreOf(disk).Reference(),
		SnapshotId: types.ID{Id: snapshot}, ChangeId: since,
	})
	must(c.lab.t, err)
	return told.Returnval.ChangedArea
}

// trackingKey is what a FileFault says about tracking; "" when it is another fault.
func trackingKey(err error) string {
	fault, ok := soapFaultOf(err).(types.FileFault)
	if !ok || len(fault.FaultMessage) == 0 {
		return ""
	}
	return strings.TrimPrefix(fault.FaultMessage[0].Key, "vim.hostd.vmsvc.cbt.")
}

// wording is a refusal in short.
func wording(err error) string {
	switch fault := soapFaultOf(err).(type) {
	case nil:
		if err != nil {
			return err.Error()
		}
		return ""
	case types.InvalidArgument:
		return "InvalidArgument " + fault.InvalidProperty
	case types.FileFault:
		return "FileFault " + trackingKey(err)
	default:
		return strings.TrimPrefix(fmt.Sprintf("%T", fault), "types.")
	}
}

// punch makes a hole in a disk's file.
func (l *lab) punch(path string, offset, length int64) {
	l.t.Helper()
	const keepSize, punchHole = 1, 2
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(l.t, err)
	defer file.Close()
	must(l.t, syscall.Fallocate(int(file.Fd()), keepSize|punchHole, offset, length))
}

func (l *lab) hits(rule string) int {
	l.t.Helper()
	var all []rules.Rule
	l.tell("GET", "/faults", nil, &all)
	i := slices.IndexFunc(all, func(r rules.Rule) bool { return r.ID == rule })
	if i < 0 {
		l.t.Fatalf("there is no rule %s", rule)
	}
	return all[i].Hits
}
