package double

import (
	"fmt"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
	vslmsim "github.com/vmware/govmomi/vslm/simulator"

	"lab.velero-plugin-for-vsphere/vcenter/internal/rules"
)

// work is what a task does: its result, or why there is none.
type work func() (types.AnyType, error)

// run starts a task for a method on some disks and answers with its reference.
// What the rules say of such tasks is decided here and now, so that rules are
// used up in the order of the calls.
func (d *Double) run(ctx *simulator.Context, method string, disks []string, do work) types.ManagedObjectReference {
	number := d.lastTask.Add(1)
	rule := d.Rules.Take(rules.Task, method, disks)
	task := simulator.CreateTask(d.model.Map().SessionManager(), method, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return carryOut(rule, do)
	})
	task.Self = types.ManagedObjectReference{Type: "Task", Value: fmt.Sprintf("task-%d", number)}
	task.Info.Name, task.Info.DescriptionId = method, "vslm."+method
	// The simulator locks a task's entity while the task runs; one entity for
	// each task lets them run side by side, as they do on a real server.
	entity := types.ManagedObjectReference{Type: "VirtualStorageObject", Value: fmt.Sprintf("operation-%d", number)}
	task.Info.Entity, task.Info.EntityName = &entity, entity.Value
	d.taskDisks.Store(task.Self.Value, disks)
	return task.Run(ctx.For(vim25.Path))
}

func carryOut(rule *rules.Rule, do work) (types.AnyType, types.BaseMethodFault) {
	if rule == nil {
		rule = &rules.Rule{}
	}
	time.Sleep(rule.Delay()) // the latency that was asked for
	if rule.Operates() {
		result, err := do()
		if err != nil {
			return nil, faultOf(err)
		}
		if rule.Fault == "" {
			return result, nil
		}
	}
	fault, err := FaultFor(rule)
	if err != nil {
		return nil, &types.SystemError{Reason: err.Error()}
	}
	return nil, fault
}

// runVSLM is run for VSLM, whose clients see tasks of a kind of their own.
func (d *Double) runVSLM(ctx *simulator.Context, method string, disk string, do work) types.ManagedObjectReference {
	task := d.run(ctx, method, []string{disk}, do)
	twin := &vslmsim.VslmTask{ManagedObjectReference: types.ManagedObjectReference{Type: "VslmTask", Value: task.Value}}
	return ctx.Map.Put(twin).Reference()
}
