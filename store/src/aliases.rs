//! Templates that the parser has merged into others: whoever asks for an old id gets the template that took its place.
//!
//! The row of a merged template stays as it was, so that its text can still be read; its id points to the survivor, over any
//! number of merges in one step. A template that is founded anew is its own again (see `put_templates`).

use std::collections::BTreeMap;

use faultline_core::{Template, TemplateId};
use rusqlite::{Row, params_from_iter};

use crate::{database::Database, error::StoreError, reads::MAX_PAGE};

impl Database {
    /// Takes note of templates (first) that others (second) have taken the place of.
    pub(crate) fn put_aliases(&self, aliases: &[(TemplateId, TemplateId)]) -> Result<(), StoreError> {
        self.write("write template aliases", |transaction| {
            let mut follow =
                transaction.prepare_cached("UPDATE template_aliases SET template = ?2 WHERE template = ?1")?;
            let mut put = transaction.prepare_cached(
                "INSERT INTO template_aliases VALUES (?1, ?2) ON CONFLICT (alias) DO UPDATE SET template = excluded.template",
            )?;
            for (alias, template) in aliases {
                let pair = (alias.0.cast_signed(), template.0.cast_signed());
                follow.execute(pair)?;
                put.execute(pair)?;
            }
            transaction.execute("DELETE FROM template_aliases WHERE alias = template", []).map(|_| ())
        })
    }

    /// Those of `ids` that were merged, with the template that took their place.
    fn survivors(&self, ids: &[TemplateId]) -> Result<BTreeMap<TemplateId, TemplateId>, StoreError> {
        if !self.has_feedback() || ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let places = vec!["?"; ids.len()].join(", ");
        let sql = format!("SELECT alias, template FROM template_aliases WHERE alias IN ({places})");
        self.read("read template aliases", |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let id = |value: i64| TemplateId(value.cast_unsigned());
            let ids = params_from_iter(ids.iter().map(|id| id.0.cast_signed()));
            let pairs = statement.query_map(ids, |row| Ok((id(row.get(0)?), id(row.get(1)?))))?;
            pairs.collect()
        })
    }

    /// For each of `ids` that exists the template that it stands for by now, in the order of `ids`.
    pub(crate) fn resolved_templates(&self, ids: &[TemplateId]) -> Result<Vec<(TemplateId, Template)>, StoreError> {
        let survivors = self.survivors(ids)?;
        let survivor = |id: &TemplateId| survivors.get(id).copied().unwrap_or(*id);
        let mut wanted: Vec<TemplateId> = ids.iter().map(survivor).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let found = self.templates_by_id(&wanted)?;
        let template = |id: &TemplateId| {
            let at = found.binary_search_by_key(&survivor(id), |template| template.id).ok()?;
            Some((*id, found[at].clone()))
        };
        Ok(ids.iter().filter_map(template).collect())
    }

    /// The templates that `template` has taken the place of, by id; at most [`MAX_PAGE`].
    pub(crate) fn aliases_of(&self, template: TemplateId) -> Result<Vec<TemplateId>, StoreError> {
        if !self.has_feedback() {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT alias FROM template_aliases WHERE template = ?1 ORDER BY alias LIMIT {MAX_PAGE}");
        self.read("read template aliases", |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let id = |row: &Row<'_>| row.get::<_, i64>(0).map(|id| TemplateId(id.cast_unsigned()));
            let aliases = statement.query_map([template.0.cast_signed()], id)?;
            aliases.collect()
        })
    }
}
