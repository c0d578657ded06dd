package double

import (
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	vslmmethods "github.com/vmware/govmomi/vslm/methods"
	vslmtypes "github.com/vmware/govmomi/vslm/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
	"lab.velero-plugin-for-vsphere/vcenter/internal/store"
)

// areasAtOnce is how many changed areas one answer holds at most, unless a
// rule says otherwise.
const areasAtOnce = 2000

// The calls that ask for changed areas.
const (
	vslmChanges = "VslmQueryChangedDiskAreas"
	vimChanges  = "VstorageObjectVCenterQueryChangedDiskAreas"
)

func (m *vslmDisks) VslmQueryChangedDiskAreas(_ *simulator.Context, request *vslmtypes.VslmQueryChangedDiskAreas) soap.HasFault {
	told, err := m.d.changedAreas(vslmChanges, request.Id, request.SnapshotId, request.StartOffset, request.ChangeId)
	if err != nil {
		return &vslmmethods.VslmQueryChangedDiskAreasBody{Fault_: soapFault(err)}
	}
	return &vslmmethods.VslmQueryChangedDiskAreasBody{Res: &vslmtypes.VslmQueryChangedDiskAreasResponse{Returnval: told}}
}

func (m *vimDisks) VstorageObjectVCenterQueryChangedDiskAreas(_ *simulator.Context, request *types.VstorageObjectVCenterQueryChangedDiskAreas) soap.HasFault {
	body := new(methods.VstorageObjectVCenterQueryChangedDiskAreasBody)
	err := m.d.onDatastore(request.Id, request.Datastore)
	if err == nil {
		var told types.DiskChangeInfo
		told, err = m.d.changedAreas(vimChanges, request.Id, request.SnapshotId, request.StartOffset, request.ChangeId)
		body.Res = &types.VstorageObjectVCenterQueryChangedDiskAreasResponse{Returnval: told}
	}
	if err != nil {
		body.Res, body.Fault_ = nil, soapFault(err)
	}
	return body
}

// changedAreas answers one query, honestly unless a rule says otherwise.
func (d *Double) changedAreas(method string, disk, snapshot types.ID, offset int64, since string) (types.DiskChangeInfo, error) {
	changes, err := d.Disks.Changes(disk.Id, snapshot.Id, since)
	if err != nil {
		return types.DiskChangeInfo{}, err
	}
	if offset < 0 || offset >= changes.Capacity {
		return types.DiskChangeInfo{}, &store.Refusal{
			Kind: store.InvalidArgument, Subject: "startOffset", Why: "it is not inside the snapshot",
		}
	}
	w := &window{Changes: changes, start: offset, end: changes.Capacity, atMost: areasAtOnce}
	rule := d.Rules.Take(rules.Answer, method, []string{disk.Id})
	if rule == nil {
		return w.tell(), nil
	}
	time.Sleep(rule.Delay()) // the latency that was asked for
	if rule.Areas > 0 {
		w.atMost = rule.Areas
	}
	if rule.Lie == "" {
		return w.tell(), nil
	}
	return lies[rule.Lie](w, rule), nil
}

// window is the part of a disk that one answer speaks of.
type window struct {
	store.Changes
	start, end int64 // in bytes
	atMost     int   // so many areas
}

// tell is the truth about the window. With more areas than one answer holds
// it is about a shorter one, and the client has to ask for the rest.
func (w *window) tell() types.DiskChangeInfo {
	told := types.DiskChangeInfo{StartOffset: w.start, Length: w.end - w.start}
	for _, area := range w.Areas {
		start, end := max(area.Start, w.start), min(area.End(), w.end)
		if start >= end {
			continue
		}
		if full := len(told.ChangedArea); full == w.atMost {
			last := told.ChangedArea[full-1]
			told.Length = last.Start + last.Length - w.start
			break
		}
		told.ChangedArea = append(told.ChangedArea, types.DiskChangeExtent{Start: start, Length: end - start})
	}
	return told
}

// without takes the grain that covers an offset out of the changes.
func (w *window) without(offset int64) {
	hole := store.Area{Start: offset / store.GrainBytes * store.GrainBytes, Length: store.GrainBytes}
	var rest []store.Area
	for _, area := range w.Areas {
		rest = append(rest,
			store.Area{Start: area.Start, Length: min(area.End(), hole.Start) - area.Start},
			store.Area{Start: max(area.Start, hole.End()), Length: area.End() - max(area.Start, hole.End())},
		)
	}
	w.Areas = slices.DeleteFunc(rest, func(area store.Area) bool { return area.Length <= 0 })
}
