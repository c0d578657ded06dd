//! `list`: the restore points of one repository.

use anyhow::{Context, Result};
use repository::RestorePoint;

use crate::args::{ListArguments, Output};
use crate::backup::short;
use crate::output;
use crate::repositories::Access;

pub(crate) async fn run(place: &str, arguments: &ListArguments, output: Output) -> Result<()> {
    let repository = Access::new(place)?.open().await?;
    let points = repository.restore_points().await.context("list restore points")?;
    let wanted = arguments.path.as_deref();
    let points: Vec<_> = points.into_iter().filter(|point| wanted.is_none_or(|path| point.path == path)).collect();
    output::result(output, &points, || text(&points))?;
    Ok(())
}

fn text(points: &[RestorePoint]) -> String {
    if points.is_empty() {
        return "no restore points".to_owned();
    }
    let rows = points.iter().map(|point| vec![short(point), when(point), point.host.clone(), point.path.clone()]);
    output::table(&["ID", "TIME", "HOST", "DISK"], rows)
}

/// To the second, in UTC.
pub(crate) fn when(point: &RestorePoint) -> String {
    point.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
