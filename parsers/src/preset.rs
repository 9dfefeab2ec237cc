//! Ready-made configurations for the systems of Loghub (He et al., "Loghub: A Large Collection of System Log Datasets", 2020):
//! line formats, time stamps and session keys. Templates need no preset: masks and tree are the same for all.

use faultline_core::ParamKind;

use crate::{
    config::{MaskConfig, ParserConfig, SessionRule},
    error::ParserError,
};

struct Preset {
    name: &'static str,
    line_format: &'static str,
    time_fields: &'static [&'static str],
    time_format: &'static str,
    session: &'static [Key],
    masks: &'static [(&'static str, &'static str)],
}

/// A session rule that can be written in a constant.
enum Key {
    Block,
    Attribute(&'static str),
    Writer(&'static str),
    Uuid,
}

const PRESETS: [Preset; 16] = [
    Preset {
        name: "hdfs",
        line_format: "<Date> <Time> <Pid> <Level> <Component>: <Content>",
        time_fields: &["Date", "Time"],
        time_format: "%y%m%d %H%M%S",
        session: &[Key::Block],
        masks: &[],
    },
    Preset {
        name: "bgl",
        line_format: "<Label> <Timestamp> <Date> <Node> <Time> <NodeRepeat> <Type> <Component> <Level> <Content>",
        time_fields: &["Time"],
        time_format: "%Y-%m-%d-%H.%M.%S.%f",
        session: &[Key::Writer("Node")],
        masks: &[],
    },
    Preset {
        name: "openstack",
        line_format: r"<Logrecord> <Date> <Time> <Pid> <Level> <Component> \[<Request>\] <Content>",
        time_fields: &["Date", "Time"],
        time_format: "%Y-%m-%d %H:%M:%S%.f",
        session: &[Key::Uuid, Key::Attribute("Request")],
        masks: &[],
    },
    Preset {
        name: "hadoop",
        line_format: r"<Date> <Time> <Level> \[<Process>\] <Component>: <Content>",
        time_fields: &["Date", "Time"],
        time_format: "%Y-%m-%d %H:%M:%S%.f",
        session: &[],
        masks: &[],
    },
    Preset {
        name: "spark",
        line_format: "<Date> <Time> <Level> <Component>: <Content>",
        time_fields: &["Date", "Time"],
        time_format: "%y/%m/%d %H:%M:%S",
        session: &[],
        masks: &[],
    },
    Preset {
        name: "zookeeper",
        line_format: r"<Date> <Time> - <Level> \[<Node>:<Component>@<Id>\] - <Content>",
        time_fields: &["Date", "Time"],
        time_format: "%Y-%m-%d %H:%M:%S%.f",
        session: &[],
        masks: &[],
    },
    Preset {
        name: "hpc",
        line_format: "<LogId> <Node> <Component> <State> <Time> <Flag> <Content>",
        time_fields: &["Time"],
        time_format: "%s",
        session: &[Key::Writer("Node")],
        masks: &[],
    },
    Preset {
        name: "thunderbird",
        line_format: r"<Label> <Timestamp> <Date> <User> <Month> <Day> <Time> <Location> <Component>(\[<Pid>\])?: <Content>",
        time_fields: &["Timestamp"],
        time_format: "%s",
        session: &[Key::Attribute("User")],
        masks: &[("QUEUE", r"\bjA[0-9A-Za-z]{12}\b")],
    },
    Preset {
        name: "windows",
        line_format: "<Date> <Time>, <Level> <Component> <Content>",
        time_fields: &["Date", "Time"],
        time_format: "%Y-%m-%d %H:%M:%S",
        session: &[],
        masks: &[],
    },
    Preset {
        name: "linux",
        line_format: r"<Month> <Day> <Time> <Host> <Component>(\[<Pid>\])?: <Content>",
        time_fields: &["Month", "Day", "Time"],
        time_format: "%b %d %H:%M:%S",
        session: &[Key::Writer("Host")],
        masks: &[],
    },
    Preset {
        name: "android",
        line_format: "<Date> <Time> <Pid> <Tid> <Level> <Component>: <Content>",
        time_fields: &["Date", "Time"],
        time_format: "%m-%d %H:%M:%S%.f",
        session: &[Key::Attribute("Pid")],
        masks: &[],
    },
    Preset {
        name: "healthapp",
        line_format: "<Time>|<Component>|<Pid>|<Content>",
        time_fields: &["Time"],
        time_format: "%Y%m%d-%H:%M:%S:%L",
        session: &[],
        masks: &[],
    },
    Preset {
        name: "apache",
        line_format: r"\[<Time>\] \[<Level>\] <Content>",
        time_fields: &["Time"],
        time_format: "%a %b %d %H:%M:%S %Y",
        session: &[],
        masks: &[],
    },
    Preset {
        name: "proxifier",
        line_format: r"\[<Time>\] <Program> - <Content>",
        time_fields: &["Time"],
        time_format: "%m.%d %H:%M:%S",
        session: &[Key::Writer("Program")],
        masks: &[],
    },
    Preset {
        name: "openssh",
        line_format: r"<Month> <Day> <Time> <Host> sshd\[<Pid>\]: <Content>",
        time_fields: &["Month", "Day", "Time"],
        time_format: "%b %d %H:%M:%S",
        session: &[Key::Attribute("Pid")],
        masks: &[],
    },
    Preset {
        name: "mac",
        line_format: r"<Month> <Day> <Time> <User> <Component>\[<Pid>\]( \(<Address>\))?: <Content>",
        time_fields: &["Month", "Day", "Time"],
        time_format: "%b %d %H:%M:%S",
        session: &[],
        masks: &[],
    },
];

impl ParserConfig {
    /// The configuration for a system by name, in any case: `hdfs`, `bgl`, `openstack`, `hadoop` and so on.
    ///
    /// # Errors
    /// [`ParserError::UnknownPreset`] names the nearest preset.
    pub fn preset(name: &str) -> Result<Self, ParserError> {
        let wanted = name.to_ascii_lowercase();
        let Some(preset) = PRESETS.iter().find(|preset| preset.name == wanted) else {
            let nearest = PRESETS.iter().min_by_key(|preset| strsim::osa_distance(preset.name, &wanted));
            return Err(ParserError::UnknownPreset {
                name: name.chars().take(64).collect(),
                nearest: nearest.map_or("hdfs", |preset| preset.name),
            });
        };
        let mut session: Vec<SessionRule> = preset
            .session
            .iter()
            .map(|key| match key {
                Key::Block => SessionRule::Param(ParamKind::Block),
                Key::Uuid => SessionRule::Param(ParamKind::Uuid),
                Key::Attribute(name) => SessionRule::Attribute((*name).into()),
                Key::Writer(name) => SessionRule::Writer((*name).into()),
            })
            .collect();
        session.push(SessionRule::ServiceInstance);
        session.push(SessionRule::Service);
        Ok(Self {
            line_format: Some(preset.line_format.into()),
            time_fields: preset.time_fields.iter().map(|name| (*name).into()).collect(),
            time_format: Some(preset.time_format.into()),
            stream: Some(preset.name.into()),
            session,
            masks: preset
                .masks
                .iter()
                .map(|(name, regex)| MaskConfig { name: (*name).into(), regex: (*regex).into() })
                .collect(),
            ..Self::default()
        })
    }

    /// Names of all presets.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|preset| preset.name)
    }
}

#[cfg(test)]
mod tests {
    use crate::LogParser;

    use super::*;

    #[test]
    fn every_preset_makes_a_parser() {
        for name in ParserConfig::preset_names() {
            LogParser::new(ParserConfig::preset(name).expect(name)).expect(name);
        }
    }

    #[test]
    fn an_unknown_preset_is_told_the_nearest() {
        for (name, nearest) in [("hfds", "hdfs"), ("open_stack", "openstack"), ("zookeper", "zookeeper")] {
            let error = ParserConfig::preset(name).expect_err(name).to_string();
            assert!(error.contains(&format!("`{nearest}`")), "{error}");
        }
        assert!(ParserConfig::preset("HDFS").is_ok());
    }
}
